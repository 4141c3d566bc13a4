"""When a batch of the patient, which could leave, waits for company, and for how long."""

from typing import Final

QUIET_TURNS_MAX: Final = 16
"""After so many turns of the event loop in a row in which nobody came it leaves: a moment where
nothing goes on, and where something does, as long as callers keep getting ready."""

WAIT_S: Final = 0.005
"""It waits no longer than that, however long the turns are. With 2 ms a slow machine, which takes
half a millisecond for a call and more, gained nothing."""

COMPANY_ENOUGH: Final = 32
"""So many leave at once."""

ALONE_MAX: Final = 4
"""After so many batches of one in a row, the next ones do not wait."""


class Lingering:
    """`begin` when a batch could leave, then `turn` in each turn of the loop, until it leaves.

    Callers in one process that are answered together ask together again. Calls from elsewhere get
    ready one after the other, some turns apart, and the server has answered one before the next is
    ready: of 400 gRPC calls at once, nine in ten left alone, each at the price of a whole batch.
    """

    def __init__(self, items_max: int) -> None:
        """A batch has no room for more than `items_max`."""
        self._enough = min(COMPANY_ENOUGH, items_max)
        self._alone = ALONE_MAX
        self._quiet_turns = 0
        self._waiting = 0
        self._until_s = 0.0

    def begin(self, now_s: float) -> None:
        """From now on, by the loop's clock."""
        self._quiet_turns = self._waiting = 0
        self._until_s = now_s + WAIT_S

    def turn(self, waiting: int, now_s: float) -> bool:
        """A turn is over, and so many wait; whether they leave."""
        self._quiet_turns = 0 if waiting > self._waiting else self._quiet_turns + 1
        self._waiting = waiting
        if (
            self._alone < ALONE_MAX
            and waiting < self._enough
            and self._quiet_turns < QUIET_TURNS_MAX
            and now_s < self._until_s
        ):
            return False
        self._alone = 0 if waiting > 1 else self._alone + 1
        return True
