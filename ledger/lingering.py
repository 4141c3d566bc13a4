"""When a batch that could leave waits for company, and for how long."""

from typing import Final

TURNS_MAX: Final = 128
"""Of the event loop: 0.1 ms where nothing goes on, and as many callers as get ready meanwhile where
something does."""

WAIT_S: Final = 0.004
"""And no longer than that, however long the turns are."""

COMPANY_ENOUGH: Final = 32
"""So many leave at once."""

FRUITLESS_MAX: Final = 4
"""After so many batches in a row that waited and that nobody joined, the next ones do not wait."""

TRY_EVERY: Final = 32
"""But one in so many does, to see whether that is so still."""


class Lingering:
    """`begin` when a batch could leave, then ask `is_over` once in each turn of the loop, until it
    is.

    Callers in one process that are answered together ask together again, and nothing is gained by
    waiting for others. Calls from elsewhere get ready one after the other, some turns apart, and
    the server has answered one before the next is ready: of 400 gRPC calls at once, nearly all left
    alone, each at the price of a whole batch. When they linger they leave in batches of five to
    eight, and 1.2 to 1.3 times as many calls are answered. Which of the two it is shows by itself,
    by whether anybody joins.
    """

    def __init__(self) -> None:
        self._fruitless = FRUITLESS_MAX
        self._turns_left = 0
        self._until_s = 0.0
        self._at_first = 0

    def begin(self, now_s: float) -> None:
        """From now on, in seconds of a clock that does not go back."""
        self._turns_left = TURNS_MAX if self._fruitless < FRUITLESS_MAX else 1
        self._until_s = now_s + WAIT_S
        self._at_first = 0

    def is_over(self, waiting: int, now_s: float) -> bool:
        """Whether those who wait, so many, leave now."""
        self._turns_left -= 1
        self._at_first = self._at_first or waiting
        if self._turns_left > 0 and waiting < COMPANY_ENOUGH and now_s < self._until_s:
            return False
        self._fruitless = 0 if waiting > self._at_first else self._fruitless + 1
        if self._fruitless == TRY_EVERY:
            self._fruitless = FRUITLESS_MAX - 1
        return True
