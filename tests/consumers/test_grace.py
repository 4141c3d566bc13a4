"""For how long what ran out is left alone, by when the ledger answered."""

import pytest

from consumers.grace import Grace


class Clock:
    """A loop that has nothing but the time."""

    now_s = 100.0

    def time(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("consumers.grace.asyncio.get_running_loop", lambda: clock)
    return clock


def answered(grace: Grace, clock: Clock, at_s: float, after_s: float = 0.0) -> bool:
    """Whether the grace lasts at an answer that took `after_s`."""
    clock.now_s = at_s
    grace.answered(at_s - after_s)
    return grace.lasts


def test_answers_that_come_again_and_again_need_no_grace(clock: Clock):
    grace = Grace(gap_s=1.5, grace_s=2)

    lasts = [answered(grace, clock, at_s) for at_s in (100, 101, 102, 103)]

    assert lasts == [True, True, False, False]


def test_an_answer_that_was_long_on_the_way_tells_of_no_ledger_that_is_there_now(clock: Clock):
    grace = Grace(gap_s=1.5, grace_s=2)
    assert [answered(grace, clock, at_s) for at_s in (100, 101, 102)] == [True, True, False]

    late = answered(grace, clock, 110, after_s=7)
    after_the_outage = answered(grace, clock, 112.1)

    assert late
    assert after_the_outage
    assert [answered(grace, clock, at_s) for at_s in (113, 114.2)] == [True, False]
