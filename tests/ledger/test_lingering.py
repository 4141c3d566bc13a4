"""Whether a batch waits for company depends on whether batches have had any."""

from ledger.lingering import ALONE_MAX, COMPANY_ENOUGH, QUIET_TURNS_MAX, WAIT_S, Lingering

TURNS_MAX = 1_000


def turns(lingering: Lingering, *, waiting: int = 1, joined_in: tuple[int, ...] = ()) -> int:
    """How many turns a batch takes to leave; one more joins it in each of the turns named."""
    lingering.begin(0.0)
    for turn in range(1, TURNS_MAX):
        waiting += turn in joined_in
        if lingering.turn(waiting, 0.0):
            return turn
    raise AssertionError("it never leaves")


def in_company() -> Lingering:
    """One whose last batch was not of one alone."""
    lingering = Lingering(100)
    turns(lingering, waiting=2)
    return lingering


def test_those_who_come_alone_leave_in_the_same_turn():
    lingering = Lingering(100)

    assert [turns(lingering) for _ in range(100)] == [1] * 100


def test_where_there_was_company_a_batch_waits_until_nobody_comes():
    lingering = in_company()

    assert turns(lingering) == QUIET_TURNS_MAX + 1
    assert turns(lingering, joined_in=(2, 10)) == QUIET_TURNS_MAX + 10


def test_a_few_that_remain_alone_do_not_end_that_and_one_more_does():
    lingering = in_company()

    took = [turns(lingering) for _ in range(ALONE_MAX + 1)]

    assert took == [QUIET_TURNS_MAX + 1] * ALONE_MAX + [1]


def test_company_in_between_begins_the_count_anew():
    lingering = in_company()

    for _ in range(3):
        took = [turns(lingering) for _ in range(ALONE_MAX - 1)]
        turns(lingering, waiting=2)
        assert took == [QUIET_TURNS_MAX + 1] * (ALONE_MAX - 1)


def test_enough_of_them_wait_for_no_more():
    assert turns(in_company(), waiting=COMPANY_ENOUGH) == 1
    assert turns(in_company(), waiting=COMPANY_ENOUGH - 1, joined_in=(5,)) == 5


def test_a_batch_without_room_for_more_waits_for_nobody():
    lingering = Lingering(3)
    turns(lingering, waiting=2)

    assert turns(lingering, waiting=3) == 1


def test_turns_that_take_long_do_not_make_the_wait_long():
    lingering = in_company()
    lingering.begin(100.0)

    assert not lingering.turn(1, 100.0)
    assert not lingering.turn(2, 100.0 + WAIT_S / 2)
    assert lingering.turn(3, 100.0 + WAIT_S)
