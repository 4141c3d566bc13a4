"""Whether a batch waits for company depends on whether waiting has brought any."""

import itertools

from ledger.lingering import COMPANY_ENOUGH, FRUITLESS_MAX, TRY_EVERY, TURNS_MAX, WAIT_S, Lingering


def turns(lingering: Lingering, *, joined_in: int | None = None, waiting: int = 1) -> int:
    """How many turns a batch takes to leave; one more joins it in the turn `joined_in`."""
    lingering.begin(0.0)
    for turn in range(1, TURNS_MAX + 2):
        if turn == joined_in:
            waiting += 1
        if lingering.is_over(waiting, 0.0):
            return turn
    raise AssertionError("it never leaves")


def in_company() -> Lingering:
    """One whose batches have been joined by others."""
    lingering = Lingering()
    while turns(lingering, joined_in=2) == 1:
        pass
    return lingering


def test_one_who_comes_alone_leaves_in_the_same_turn():
    lingering = Lingering()

    took = [turns(lingering) for _ in range(10 * TRY_EVERY)]

    assert took.count(1) >= len(took) * (TRY_EVERY - FRUITLESS_MAX - 1) // TRY_EVERY


def test_those_who_ask_together_and_are_answered_together_do_not_wait_for_more():
    lingering = Lingering()

    took = [turns(lingering, waiting=8) for _ in range(TRY_EVERY - FRUITLESS_MAX - 1)]

    assert set(took) == {1}


def test_once_in_a_while_it_is_tried_whether_others_come():
    lingering = Lingering()

    took = [turns(lingering) for _ in range(10 * TRY_EVERY)]

    waited = [at for at, turns_taken in enumerate(took) if turns_taken == TURNS_MAX]
    assert len(waited) >= 9
    assert all(b - a <= TRY_EVERY for a, b in itertools.pairwise(waited))


def test_while_others_join_batches_wait_for_them():
    lingering = in_company()

    assert [turns(lingering, joined_in=2) for _ in range(5)] == [TURNS_MAX] * 5


def test_a_few_that_nobody_joins_do_not_end_that_and_some_more_do():
    lingering = in_company()

    took = [turns(lingering) for _ in range(FRUITLESS_MAX + 1)]

    assert took == [TURNS_MAX] * FRUITLESS_MAX + [1]


def test_enough_of_them_wait_for_no_more():
    lingering = in_company()

    assert turns(lingering, waiting=COMPANY_ENOUGH) == 1


def test_turns_that_take_long_do_not_make_the_wait_long():
    lingering = in_company()
    lingering.begin(100.0)

    assert not lingering.is_over(1, 100.0 + WAIT_S / 2)
    assert lingering.is_over(1, 100.0 + WAIT_S)
