"""What the exceptions of a handler mean for its task: another attempt, a later one, or none."""

import time
from collections.abc import Iterator
from typing import Any, Final, cast

import msgspec

from ledger.events import ErrorKind
from ledger.retry_after import retry_after_s
from ledger.retry_policy import DELAY_MS_MAX


class PermanentError(Exception):
    """Raise it in a handler to fail the task at once: trying again would not help."""


class RetryLater(Exception):
    """Raise it in a handler to have the task tried again, but not before `seconds` have passed: as
    a service asks with `Retry-After`, whose text may be given as it is, seconds or a date. The task
    is put off, which is not counted as a retry.

    What it asks for mostly comes from others: more than 30 days are 30 days, and a text that nobody
    can read is 0. Less than the retry policy's first pause is that pause, in the ledger.
    """

    def __init__(self, seconds: float | str, message: str = "") -> None:
        """Raises TypeError for what is neither number nor text, ValueError for NaN."""
        if isinstance(seconds, str):
            # It must not fail the task for good that nobody can read it.
            seconds = retry_after_s(seconds, time.time())
        if not isinstance(seconds, int | float):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"RetryLater: seconds must be a number or a text, got {seconds!r}")
        if seconds != seconds:
            raise ValueError("RetryLater: seconds must be a number, got NaN")
        self.retry_after_ms = round(min(max(seconds * 1000, 0), DELAY_MS_MAX))
        super().__init__(message or f"not before {self.retry_after_ms / 1000:g} s have passed")

    def __reduce__(self) -> tuple[Any, ...]:
        """To go from one process to another, as those of a pool send what they raise."""
        return type(self), (self.retry_after_ms / 1000, str(self))


ExceptionClass = type[BaseException]

_DEFAULTS: Final[dict[ExceptionClass, ErrorKind]] = {
    PermanentError: ErrorKind.PERMANENT,
    # A handler that ends the interpreter, or recurses without end, will do the same next time.
    SystemExit: ErrorKind.PERMANENT,
    KeyboardInterrupt: ErrorKind.PERMANENT,
    RecursionError: ErrorKind.PERMANENT,
    RetryLater: ErrorKind.RETRYABLE,
    BaseException: ErrorKind.RETRYABLE,
}
_FIXED: Final[dict[ExceptionClass, ErrorKind]] = {
    PermanentError: ErrorKind.PERMANENT,
    RetryLater: ErrorKind.RETRYABLE,
}
"""What their names say, no handler can say otherwise of."""


class Classification(msgspec.Struct, frozen=True):
    """The exceptions that a handler names. The most specific class that is named decides, in the
    order in which Python itself looks at an exception's classes."""

    permanent: tuple[ExceptionClass, ...] = ()
    """They fail the task at once."""
    retryable: tuple[ExceptionClass, ...] = ()
    """They are worth another attempt, though a class above them may not be."""

    def kind_of(self, error: BaseException) -> ErrorKind:
        """Whether an error that the handler raised is worth another attempt."""
        members = _members(error)
        # What is named beside groups means the members of one, not the group.
        wanted: Any = BaseExceptionGroup if members else BaseException
        for each in type(error).__mro__:
            if issubclass(each, wanted) and (named := self._named(each)) is not None:
                return named
        # A TaskGroup's: worth another attempt when any of its errors is.
        permanent = all(self.kind_of(each) is ErrorKind.PERMANENT for each in members)
        return ErrorKind.PERMANENT if permanent else ErrorKind.RETRYABLE

    def retry_after_ms(self, error: BaseException) -> int | None:
        """How long the error asks to wait; None when the retry policy says. A group of errors asks
        for the longest of its members' times, if each of them asks for one."""
        if self.kind_of(error) is not ErrorKind.RETRYABLE:
            return None
        asked = [e.retry_after_ms if isinstance(e, RetryLater) else None for e in _leaves(error)]
        times = [ms for ms in asked if ms is not None]
        return max(times) if len(times) == len(asked) else None

    def _named(self, each: ExceptionClass) -> ErrorKind | None:
        if each in self.permanent:
            return ErrorKind.PERMANENT
        if each in self.retryable:
            return ErrorKind.RETRYABLE
        return _DEFAULTS.get(each)


def classify(permanent: Any, retryable: Any) -> Classification:
    """The classification of a handler's options. Raises ValueError, which says what is wrong."""
    lists = {
        "permanent": _classes("permanent", permanent),
        "retryable": _classes("retryable", retryable),
    }
    both = [each.__name__ for each in lists["permanent"] if each in lists["retryable"]]
    if both:
        raise ValueError(f"{', '.join(both)}: named by permanent= and by retryable=, keep one")
    for option, classes in lists.items():
        for each in classes:
            if each in _FIXED and _FIXED[each] != option:
                raise ValueError(f"{option}= cannot name {each.__name__}, which is {_FIXED[each]}")
    return Classification(**lists)


def _classes(option: str, given: Any) -> tuple[ExceptionClass, ...]:
    classes = cast("tuple[Any, ...]", given) if isinstance(given, tuple) else (given,)
    if not all(isinstance(each, type) and issubclass(each, BaseException) for each in classes):
        raise ValueError(
            f"{option}= takes an exception class or a tuple of them, such as (ValueError,"
            f" KeyError); got {given!r}"
        )
    return tuple(dict.fromkeys(classes))


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors in a group, at any depth; an error that is none by itself."""
    members = _members(error)
    if not members:
        yield error
    for each in members:
        yield from _leaves(each)


def _members(error: BaseException) -> tuple[BaseException, ...]:
    """The errors that a group is made of, at least one; none of what is no group."""
    if isinstance(error, BaseExceptionGroup):
        return cast("BaseExceptionGroup[BaseException]", error).exceptions
    return ()
