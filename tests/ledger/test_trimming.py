"""Up to where a partition may be trimmed, and who holds it back."""

import pytest

from ledger.store import Position
from ledger.subscriptions import Checkpoint, Ends, entry_after, entry_before
from ledger.trimming import Holder, TrimBound, trim_bound

OLDEST_HELD_MS = 1_000


def bound(*holders: Holder) -> TrimBound:
    return trim_bound(2, "9000-3", holders, OLDEST_HELD_MS)


def up_to(entry: str) -> Position:
    return Position(2, entry)


def test_without_groups_everything_but_the_last_event_may_go():
    assert bound() == TrimBound(up_to("9000-3"), (), ())


def test_a_group_that_has_passed_everything_holds_nothing():
    assert bound(Holder("a", "9000-3", None)) == TrimBound(up_to("9000-3"), (), ())


def test_the_group_that_is_furthest_behind_holds_the_rest():
    found = bound(Holder("a", "5000-0", "5001-0"), Holder("b", "4000-2", "4000-3"))
    assert found == TrimBound(up_to("4000-2"), ("b",), ())


def test_groups_that_are_equally_far_are_all_named():
    found = bound(Holder("a", "4000-2", "4000-3"), Holder("b", "4000-2", "4000-3"))
    assert found.held_by == ("a", "b")


def test_what_is_older_than_the_limit_is_held_for_nobody():
    found = bound(Holder("late", "10-0", "20-0"), Holder("a", "5000-0", "5001-0"))
    assert found == TrimBound(up_to("1000-0"), (), ("late",))


def test_a_group_with_nothing_so_old_to_pass_is_not_late():
    found = bound(Holder("idle", "10-0", "2000-0"))
    assert found == TrimBound(up_to("10-0"), ("idle",), ())


@pytest.mark.parametrize(
    ("entry", "before"), [("5-7", "5-6"), ("5-0", f"4-{(1 << 64) - 1}"), ("0-0", "0-0")]
)
def test_the_entry_before_another(entry: str, before: str):
    assert entry_before(entry) == before
    assert entry == "0-0" or entry_after(before) == entry


def test_lag_is_what_stands_behind():
    ends = Ends("5-0", "9-0", added=9, length=5)
    assert ends.lag(Checkpoint("9-0", "", 9)) == 0
    assert ends.lag(Checkpoint("7-0", "", 7)) == 2
    assert ends.lag(Checkpoint("8-0", "", 9)) == 1, "the last one cannot be passed"


def test_what_was_taken_away_unread_is_lost():
    ends = Ends("5-0", "9-0", added=9, length=5)
    assert ends.lost_after(Checkpoint("2-0", "", 2))
    assert not ends.lost_after(Checkpoint("4-0", "", 4)), "all that went was passed"
    assert not ends.lost_after(Checkpoint("6-0", "", 6))
    assert Ends("0-0", "9-0", added=9, length=0).lost_after(Checkpoint("2-0", "", 2))
    assert not Ends("0-0", "9-0", added=9, length=0).lost_after(Checkpoint("9-0", "", 9))
