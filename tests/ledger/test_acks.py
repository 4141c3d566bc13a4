"""How far acknowledgements, in whatever order, move a checkpoint."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.acks import FEW_LINES, Acks
from ledger.subscriptions import Checkpoint


def at(number: int) -> Checkpoint:
    return Checkpoint(f"{number}-0", "", number)


def reading(*numbers: int, given_out: bool = True) -> Acks:
    """Events at 1 to the last of `numbers`; the others are wanted by nobody."""
    acks = Acks(at(0))
    for number in range(1, max(numbers) + 1):
        if number in numbers:
            acks.read(at(number))
            if given_out:
                acks.gave(f"{number}-0")
        else:
            acks.passed_over(at(number))
    return acks


def test_nothing_is_done_until_it_is_acknowledged():
    assert reading(1, 2).checkpoint == at(0)


def test_an_acknowledged_event_is_done():
    acks = reading(1, 2)
    acks.ack("1-0")
    assert (acks.checkpoint, acks.open) == (at(1), 1)


def test_one_that_is_acknowledged_early_waits_for_the_older_ones():
    acks = reading(1, 2, 3)
    acks.ack("3-0")
    acks.ack("2-0")
    assert acks.checkpoint == at(0)
    acks.ack("1-0")
    assert acks.checkpoint == at(3)


def test_what_nobody_wants_is_done_with_what_stands_before_it():
    acks = reading(2, 5)
    assert acks.checkpoint == at(1)
    acks.ack("2-0")
    assert acks.checkpoint == at(4)


def test_acknowledging_twice_changes_nothing():
    acks = reading(1, 2)
    acks.ack("1-0")
    acks.ack("1-0")
    assert acks.checkpoint == at(1)


def test_a_position_stands_for_all_before_it():
    acks = reading(1, 2, 4)
    acks.ack_up_to("3-0")
    assert acks.checkpoint == at(3)


def test_a_position_stands_for_nothing_that_was_not_given_out():
    acks = reading(1, 2, given_out=False)
    acks.gave("1-0")
    acks.ack_up_to("2-0")
    assert acks.checkpoint == at(1)


def test_what_was_not_given_out_can_be_withdrawn():
    acks = reading(1, 2, 4, given_out=False)
    acks.gave("1-0")
    acks.withdraw()
    assert acks.open == 1
    acks.ack("1-0")
    assert acks.checkpoint == at(1)


def test_what_is_remembered_is_bounded_by_what_is_open():
    acks = reading(1, 2)
    for number in range(3, 2_000):
        acks.read(at(number))
        acks.gave(f"{number}-0")
        acks.ack(f"{number}-0")
        assert acks.lines <= 4 * acks.open + FEW_LINES + 1
    acks.ack("1-0")
    assert acks.checkpoint == at(1)
    acks.ack("2-0")
    assert acks.checkpoint == at(1_999)


@given(st.data())
def test_the_checkpoint_is_just_before_the_first_that_is_open(data: st.DataObject):
    few = data.draw(st.sampled_from((0, FEW_LINES)))
    wanted = data.draw(st.lists(st.booleans(), min_size=1, max_size=30))
    numbers = [n for n, is_wanted in enumerate(wanted, 1) if is_wanted]
    acks = Acks(at(0))
    for number in range(1, len(wanted) + 1):
        if number in numbers:
            acks.read(at(number))
            acks.gave(f"{number}-0")
        else:
            acks.passed_over(at(number))
    left = set(numbers)
    for number in data.draw(st.permutations(numbers)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("ledger.acks.FEW_LINES", few)
            acks.ack(f"{number}-0")
        left.discard(number)
        assert acks.checkpoint == at(min(left, default=len(wanted) + 1) - 1)
        assert acks.open == len(left)
