"""What an exception of a handler means: the most specific class that is named decides."""

import pickle
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from consumers.classification import Classification, PermanentError, RetryLater, classify
from consumers.subscription_errors import AckRefused
from ledger.events import ErrorKind
from ledger.retry_policy import DELAY_MS_MAX
from ledger.store import Position

PERMANENT, RETRYABLE = ErrorKind.PERMANENT, ErrorKind.RETRYABLE


class Refused(ConnectionError):
    """One that a handler might bring."""


class RateLimited(RetryLater):
    """Another."""


class Both(KeyError, ConnectionError):
    """Of two classes, neither of which is above the other."""


@pytest.mark.parametrize(
    ("permanent", "retryable", "error", "kind"),
    [
        ((), (), ValueError(), RETRYABLE),
        ((), (), PermanentError(), PERMANENT),
        ((), (), SystemExit(), PERMANENT),
        ((), (), RecursionError(), PERMANENT),
        ((ValueError,), (), UnicodeError(), PERMANENT),
        ((ValueError,), (UnicodeError,), UnicodeError(), RETRYABLE),
        ((ValueError,), (UnicodeError,), ValueError(), PERMANENT),
        ((OSError,), (ConnectionError,), ConnectionResetError(), RETRYABLE),
        ((OSError, Refused), (ConnectionError,), Refused(), PERMANENT),
        ((Exception,), (ConnectionError, TimeoutError), TimeoutError(), RETRYABLE),
        ((Exception,), (ConnectionError, TimeoutError), KeyError(), PERMANENT),
        ((Exception,), (), RetryLater(1), RETRYABLE),
        ((Exception,), (RecursionError,), RecursionError(), RETRYABLE),
        ((RateLimited,), (), RateLimited(1), PERMANENT),
        ((LookupError,), (ConnectionError,), Both(), PERMANENT),
        ((ConnectionError,), (LookupError,), Both(), RETRYABLE),
    ],
)
def test_the_most_specific_class_that_is_named_decides(
    permanent: Any, retryable: Any, error: BaseException, kind: ErrorKind
):
    assert classify(permanent, retryable).kind_of(error) is kind


def group(*errors: Exception) -> ExceptionGroup[Exception]:
    return ExceptionGroup("several", errors)


@pytest.mark.parametrize(
    ("permanent", "errors", "kind"),
    [
        (Exception, (KeyError(), ConnectionError()), RETRYABLE),
        (Exception, (KeyError(), group(ValueError(), ConnectionError())), RETRYABLE),
        (Exception, (KeyError(), group(ValueError())), PERMANENT),
        ((), (PermanentError(), PermanentError()), PERMANENT),
        (ExceptionGroup, (ConnectionError(),), PERMANENT),
    ],
)
def test_a_group_is_what_its_errors_are_unless_groups_are_named(
    permanent: Any, errors: tuple[Exception, ...], kind: ErrorKind
):
    assert classify(permanent, ConnectionError).kind_of(group(*errors)) is kind


@pytest.mark.parametrize(
    ("seconds", "ms"),
    [(30, 30_000), (0.25, 250), (0, 0), (-5, 0), (1e300, DELAY_MS_MAX), (10**400, DELAY_MS_MAX),
     (float("inf"), DELAY_MS_MAX), ("120", 120_000), (" 1.5 ", 1_500), ("9" * 5_000, DELAY_MS_MAX),
     ("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("Fri, 31 Dec 9999 23:59:59 GMT", DELAY_MS_MAX),
     ("", 0), ("soon", 0), ("-5", 0), ("nan", 0), ("Wed, 99 Oct 2015 07:28:00 GMT", 0)],
)  # fmt: skip
def test_a_time_to_wait_is_brought_within_its_bounds(seconds: float | str, ms: int):
    assert Classification().retry_after_ms(RetryLater(seconds)) == ms


@pytest.mark.parametrize(
    "form", ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y"]
)
def test_a_time_to_wait_may_be_a_date_as_http_writes_it(form: str):
    later = RetryLater((datetime.now(UTC) + timedelta(seconds=90)).strftime(form))

    # A date is one of whole seconds.
    assert 80_000 < later.retry_after_ms <= 90_000


@pytest.mark.parametrize(("seconds", "error"), [(float("nan"), ValueError), (None, TypeError)])
def test_a_time_to_wait_that_is_no_number_is_an_error(seconds: Any, error: type[Exception]):
    with pytest.raises(error, match=r"RetryLater: seconds must be a number.*, got"):
        RetryLater(seconds)


@pytest.mark.parametrize(
    ("error", "ms"),
    [
        (ValueError(), None),
        (RateLimited(2), 2_000),
        (group(RetryLater(2), group(RetryLater(5))), 5_000),
        (group(RetryLater(2), ValueError()), None),
        (group(RetryLater(2), PermanentError()), None),
    ],
)
def test_a_group_waits_as_long_as_the_most_patient_of_its_errors_asks(
    error: BaseException, ms: int | None
):
    assert Classification().retry_after_ms(error) == ms


def test_what_is_permanent_asks_for_nothing():
    assert Classification(permanent=(RateLimited,)).retry_after_ms(RateLimited(2)) is None


def test_a_text_says_how_long_when_there_is_no_other():
    assert str(RetryLater(90)) == "not before 90 s have passed"
    assert str(RetryLater(90, "the model is loading")) == "the model is loading"


@pytest.mark.parametrize(
    "error", [RetryLater(90, "the quota is spent"), AckRefused(Position(0, "1763811000123-0"))]
)
def test_what_is_raised_comes_whole_from_another_process(error: Exception):
    other = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own

    assert (type(other), str(other), vars(other)) == (type(error), str(error), vars(error))
