"""What every keeper of subscriptions must do. A subclass brings it; nothing here knows which one it
is."""

import pytest

from ledger.memory_store import MemoryStore
from ledger.redis_store import RedisStore
from ledger.store import Position
from ledger.subscriptions import (
    BEGINNING,
    GROUPS_MAX,
    Checkpoint,
    Filters,
    Group,
    Halted,
    Held,
    Subscriptions,
    Taken,
    TooManyGroups,
)
from tests.contracts.store import new_id, submit

LONG_MS = 600_000
LEASE_MS = 15_000
DAY_MS = 86_400_000
START = Checkpoint(BEGINNING, "", 0)


def a_group(id: str = "g1", **filters: tuple[str, ...]) -> Group:
    return Group(id, "epoch", 1, Filters(**filters), (START, START))


async def filled(store: MemoryStore | RedisStore, partition: int, count: int) -> list[str]:
    """Submit tasks until there are so many events in a partition; their entries."""
    while True:
        events = await store.events_after(Position(partition, BEGINNING), count, 1)
        if len(events) >= count:
            return [event.position.entry for event in events]
        task_id = new_id()
        if store.partition_of(task_id) == partition:
            await submit(store, task_id=task_id)


TAG = a_group().tag("billing")


class SubscriptionsContract:
    """Tests of the seam."""

    @pytest.fixture
    def store(self) -> MemoryStore | RedisStore:
        raise NotImplementedError

    @pytest.fixture
    def subscriptions(self) -> Subscriptions:
        raise NotImplementedError

    short_ms = 30
    """A lease that `wait_out` waits out."""

    async def wait_out(self) -> None:
        """Return once leases of `short_ms` are over that were taken before."""
        raise NotImplementedError

    async def set_clock(self, by_ms: int) -> None:
        """Set the clock by which leases end on, or back."""
        raise NotImplementedError

    # -- groups -------------------------------------------------------------------------------

    async def test_a_group_is_kept_as_it_was_registered_first(self, subscriptions: Subscriptions):
        first = await subscriptions.register("billing", a_group("g1", types=("TaskFailed",)))
        second = await subscriptions.register("billing", a_group("g2"))

        assert first == second == a_group("g1", types=("TaskFailed",))
        assert await subscriptions.groups() == {"billing": first}

    async def test_a_group_that_is_removed_leaves_nothing(self, subscriptions: Subscriptions):
        await subscriptions.register("billing", a_group())
        await subscriptions.claim(0, TAG, "m1", LONG_MS, START)
        await subscriptions.beat("billing", "m1", LONG_MS)

        assert await subscriptions.remove("billing")

        assert await subscriptions.group("billing") is None
        assert not await subscriptions.remove("billing")
        assert await subscriptions.members("billing") == []
        assert (await subscriptions.view(0)).readings == {}

    async def test_there_is_a_bound_on_groups(self, subscriptions: Subscriptions):
        for number in range(GROUPS_MAX):
            await subscriptions.register(f"g{number}", a_group())

        with pytest.raises(TooManyGroups):
            await subscriptions.register("one-more", a_group())

        assert await subscriptions.register("g7", a_group("other")) == a_group()

    # -- members ------------------------------------------------------------------------------

    async def test_members_are_there_until_they_leave(self, subscriptions: Subscriptions):
        await subscriptions.beat("billing", "m2", LONG_MS)
        there = await subscriptions.beat("billing", "m1", LONG_MS)

        assert there == ["m1", "m2"] == await subscriptions.members("billing")
        assert await subscriptions.beat("billing", "m1", 0) == ["m2"]
        assert await subscriptions.members("other") == []

    async def test_a_silent_member_is_not_there(self, subscriptions: Subscriptions):
        await subscriptions.beat("billing", "m1", self.short_ms)
        await self.wait_out()

        assert await subscriptions.members("billing") == []

    async def test_one_that_died_before_the_clock_was_set_back_is_soon_not_there(
        self, subscriptions: Subscriptions
    ):
        await subscriptions.beat("billing", "dead", LEASE_MS)
        await self.set_clock(-DAY_MS)
        # It may be alive, and say so again.
        assert await subscriptions.beat("billing", "m1", LEASE_MS) == ["dead", "m1"]

        await self.set_clock(LEASE_MS)

        assert await subscriptions.beat("billing", "m1", LEASE_MS) == ["m1"]

    async def test_one_with_a_longer_lease_is_there_for_as_long_as_it_says_so(
        self, subscriptions: Subscriptions
    ):
        for _ in range(3):
            await subscriptions.beat("billing", "patient", LONG_MS)
            # when others are there, and a little more than a second passes until it says so again
            await subscriptions.beat("billing", "quick", 1_000)
            await self.set_clock(1_500)
            assert await subscriptions.members("billing") == ["patient"]

    # -- leases -------------------------------------------------------------------------------

    async def test_a_partition_is_held_by_one(self, subscriptions: Subscriptions):
        first = await subscriptions.claim(0, TAG, "m1", LONG_MS, START)
        second = await subscriptions.claim(0, TAG, "m2", LONG_MS, START)

        assert first == Held(1, START)
        assert second == Taken("m1")
        assert isinstance(await subscriptions.claim(1, TAG, "m2", LONG_MS, START), Held)

    async def test_who_asks_again_has_it_again(self, subscriptions: Subscriptions):
        await subscriptions.claim(0, TAG, "m1", LONG_MS, START)

        assert await subscriptions.claim(0, TAG, "m1", LONG_MS, START) == Held(2, START)

    async def test_what_a_dead_member_held_is_taken_over_where_it_was(
        self, subscriptions: Subscriptions
    ):
        await subscriptions.claim(0, TAG, "m1", self.short_ms, START)
        await subscriptions.keep(0, TAG, 1, self.short_ms, Checkpoint("5-0", "ab", 5))
        await self.wait_out()

        taken = await subscriptions.claim(0, TAG, "m2", LONG_MS, START)

        assert taken == Held(2, Checkpoint("5-0", "ab", 5))

    async def test_a_late_member_changes_nothing(self, subscriptions: Subscriptions):
        await subscriptions.claim(0, TAG, "m1", self.short_ms, START)
        await self.wait_out()
        await subscriptions.claim(0, TAG, "m2", LONG_MS, START)

        assert not await subscriptions.keep(0, TAG, 1, LONG_MS, Checkpoint("9-0", "", 9))
        assert not await subscriptions.halt(0, TAG, 1, "no")

        reading = (await subscriptions.view(0)).readings[TAG]
        assert (reading.checkpoint, reading.owner, reading.generation) == (START, "m2", 2)

    async def test_a_lease_that_ran_out_and_nobody_took_is_renewed(
        self, subscriptions: Subscriptions
    ):
        await subscriptions.claim(0, TAG, "m1", self.short_ms, START)
        await self.wait_out()
        assert (await subscriptions.view(0)).readings[TAG].owner == ""

        assert await subscriptions.keep(0, TAG, 1, LONG_MS)

        assert (await subscriptions.view(0)).readings[TAG].owner == "m1"

    async def test_a_clock_that_is_set_back_prolongs_no_lease(self, subscriptions: Subscriptions):
        await subscriptions.claim(0, TAG, "dead", LEASE_MS, START)
        await self.set_clock(-DAY_MS)
        assert await subscriptions.claim(0, TAG, "m2", LONG_MS, START) == Taken("dead")

        await self.set_clock(LEASE_MS)

        assert await subscriptions.claim(0, TAG, "m2", LONG_MS, START) == Held(2, START)
        assert await subscriptions.claim(0, TAG, "m1", LONG_MS, START) == Taken("m2")

    async def test_what_is_given_back_is_anybodys_at_once(self, subscriptions: Subscriptions):
        await subscriptions.claim(0, TAG, "m1", LONG_MS, START)
        await subscriptions.keep(0, TAG, 1, 0, Checkpoint("2-0", "", 2))

        held = await subscriptions.claim(0, TAG, "m2", LONG_MS, START)

        assert held == Held(2, Checkpoint("2-0", "", 2))

    # -- checkpoints --------------------------------------------------------------------------

    @pytest.mark.parametrize("earlier", ["9-0", "10-4", "10-5"])
    async def test_a_checkpoint_does_not_go_back(self, subscriptions: Subscriptions, earlier: str):
        await subscriptions.claim(0, TAG, "m1", LONG_MS, START)
        await subscriptions.keep(0, TAG, 1, LONG_MS, Checkpoint("10-5", "ab", 5))

        assert await subscriptions.keep(0, TAG, 1, LONG_MS, Checkpoint(earlier, "", 4))

        assert (await subscriptions.view(0)).readings[TAG].checkpoint.digest == "ab"

    async def test_seeking_sets_a_group_back_and_ends_its_leases(
        self, subscriptions: Subscriptions
    ):
        await subscriptions.claim(0, TAG, "m1", LONG_MS, START)
        await subscriptions.keep(0, TAG, 1, LONG_MS, Checkpoint("10-5", "ab", 5))

        await subscriptions.seek(0, TAG, Checkpoint("3-0", "", 3))

        assert not await subscriptions.keep(0, TAG, 1, LONG_MS, Checkpoint("11-0", "", 6))
        held = await subscriptions.claim(0, TAG, "m1", LONG_MS, START)
        assert held == Held(3, Checkpoint("3-0", "", 3))

    async def test_a_group_that_is_halted_goes_on_when_somebody_seeks(
        self, subscriptions: Subscriptions
    ):
        await subscriptions.claim(0, TAG, "m1", LONG_MS, START)

        assert await subscriptions.halt(0, TAG, 1, "it went back")

        assert await subscriptions.claim(0, TAG, "m2", LONG_MS, START) == Halted("it went back")
        assert (await subscriptions.view(0)).readings[TAG].halted == "it went back"
        await subscriptions.seek(0, TAG, START)
        assert isinstance(await subscriptions.claim(0, TAG, "m2", LONG_MS, START), Held)

    # -- the stream ---------------------------------------------------------------------------

    async def test_an_empty_partition_has_no_ends(self, subscriptions: Subscriptions):
        ends = await subscriptions.ends(0)

        assert (ends.first, ends.last, ends.added, ends.length) == (BEGINNING, BEGINNING, 0, 0)
        assert ends.lag(START) == 0
        assert not ends.lost_after(START)

    async def test_entries_are_counted_behind_one(
        self, store: MemoryStore | RedisStore, subscriptions: Subscriptions
    ):
        entries = await filled(store, 1, 5)

        ends = await subscriptions.ends(1)

        assert (ends.first, ends.last, ends.added) == (entries[0], entries[-1], 5)
        assert await subscriptions.count_after(1, entries[1]) == 3
        assert await subscriptions.count_after(1, entries[1], entries[3]) == 2
        assert await subscriptions.count_after(1, entries[3], entries[1]) == 0
        assert await subscriptions.first_after(1, entries[1]) == entries[2]
        assert await subscriptions.first_after(1, ends.last) is None
        assert ends.lag(Checkpoint(entries[1], "", 2)) == 3
