"""Which way a list is read: by what it costs."""

from projections.list_plan import FilterIndex, Plan, Sizes, choose

MILLION = 1_000_000


def sizes(matching: int, *filters: FilterIndex, span: int = MILLION, newer: int = 0) -> Sizes:
    return Sizes(MILLION, matching, span, newer, filters)


def kb(entries: int) -> FilterIndex:
    return FilterIndex("tasks_kb", entries, ordered=True)


def test_a_list_in_order_of_creation_walks_its_narrowest_filter():
    plan = choose("created_at", True, sizes(900, kb(1_000)), 0, 21)

    assert (plan.index, plan.sorts) == ("tasks_kb", False)


def test_without_a_filter_the_order_is_walked():
    plan = choose("updated_at", True, sizes(MILLION), 19_980, 21)

    assert (plan.index, plan.sorts, plan.otherwise) == ("tasks_updated", False, None)


def test_little_that_matches_is_gathered():
    plan = choose("updated_at", True, sizes(100, kb(100)), 0, 21)

    assert (plan.index, plan.sorts) == ("tasks_kb", True)


def test_a_walk_that_may_go_wrong_is_given_up_in_time():
    plan = choose("updated_at", True, sizes(20_000, kb(50_000)), 0, 21)

    assert (plan.index, plan.sorts) == ("tasks_updated", False)
    assert plan.otherwise is not None
    assert (plan.otherwise.index, plan.otherwise.sorts) == ("tasks_kb", True)
    assert 21 * 50 < plan.entries_max < MILLION / 10


def test_much_that_matches_is_walked_to_the_end():
    plan = choose("updated_at", True, sizes(400_000, kb(500_000)), 0, 21)

    assert plan == Plan("tasks_updated", sorts=False, cost_us=plan.cost_us)


def test_what_was_created_too_late_makes_a_walk_dear():
    early = sizes(10_000, kb(10_000), span=500_000, newer=500_000)

    down, up = choose("updated_at", True, early, 0, 21), choose("updated_at", False, early, 0, 21)

    assert (down.index, down.sorts) == ("tasks_kb", True)
    assert (up.index, up.sorts) == ("tasks_updated", False)


def test_a_narrow_span_of_creation_is_gathered():
    plan = choose("completed_at", True, sizes(500, span=1_000, newer=900_000), 0, 21)

    assert (plan.index, plan.sorts) == ("tasks_created", True)
