"""The contract of subscriptions: on the reference, on Valkey, and on Redis 7.0 where it is
installed."""

from collections.abc import AsyncIterator

import pytest
from redis.exceptions import ResponseError

from ledger.keys import SUBSCRIPTIONS, PartitionKeys, members
from ledger.memory_store import MemoryStore
from ledger.memory_subscriptions import MemorySubscriptions
from ledger.redis_calls import ForeignKey
from ledger.redis_connection import send
from ledger.redis_store import RedisStore, StoreOptions
from ledger.redis_subscriptions import RedisSubscriptions
from ledger.subscriptions import order_of
from tests.contracts.subscriptions import (
    LONG_MS,
    START,
    TAG,
    SubscriptionsContract,
    a_group,
    filled,
)
from tests.contracts.test_memory_store import no_wait
from tests.places import unknown_keys
from tests.servers import empty

PARTITIONS = 2
TIMEOUT_MS = 5_000


class TestMemorySubscriptions(SubscriptionsContract):
    now_ms = 1_800_000_000_000

    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore(lambda: self.now_ms, no_wait, PARTITIONS)

    @pytest.fixture
    def subscriptions(self, store: MemoryStore) -> MemorySubscriptions:
        return MemorySubscriptions(store, lambda: self.now_ms)

    async def wait_out(self) -> None:
        self.now_ms += self.short_ms

    async def set_clock(self, by_ms: int) -> None:
        self.now_ms += by_ms


class OnAServer(SubscriptionsContract):
    @pytest.fixture
    def url(self) -> str:
        raise NotImplementedError

    @pytest.fixture
    async def store(self, url: str) -> AsyncIterator[RedisStore]:
        await empty(url)
        self.opened = await RedisStore.open(url, StoreOptions(partitions=PARTITIONS))
        yield self.opened
        assert await unknown_keys(self.opened.client) == []
        await self.opened.close()
        await empty(url)

    @pytest.fixture
    def subscriptions(self, store: RedisStore) -> RedisSubscriptions:
        return RedisSubscriptions(store.client, PARTITIONS, TIMEOUT_MS)

    async def wait_out(self) -> None:
        # The server's clock is the one that counts.
        await send(
            self.opened.client, ("BLPOP", PartitionKeys(0).prefix, str(self.short_ms / 1_000))
        )

    async def set_clock(self, by_ms: int) -> None:
        # As if it had been: what it says stays, and all ends of leases are moved.
        client, checkpoints = self.opened.client, PartitionKeys(0).checkpoints
        lease = await send(client, ("HGET", checkpoints, f"{TAG}:lease"))
        if lease is not None:
            generation, until, owner = lease.decode().split(" ")
            moved = f"{generation} {int(until) - by_ms} {owner}"
            await send(client, ("HSET", checkpoints, f"{TAG}:lease", moved))
        there = await send(client, ("ZRANGE", members("billing"), 0, -1))
        for member in there:
            await send(client, ("ZINCRBY", members("billing"), -by_ms, member))

    async def test_leases_are_kept_at_the_memory_limit(
        self, store: RedisStore, subscriptions: RedisSubscriptions
    ):
        await subscriptions.claim(0, TAG, "m1", LONG_MS, START)
        await send(store.client, ("CONFIG", "SET", "maxmemory", 1))
        try:
            with pytest.raises(ResponseError, match="maxmemory"):
                await send(store.client, ("SET", PartitionKeys(0).task("x"), "x"))

            assert await subscriptions.keep(0, TAG, 1, LONG_MS)
            assert await subscriptions.beat("billing", "m1", LONG_MS) == ["m1"]
        finally:
            await send(store.client, ("CONFIG", "SET", "maxmemory", 0))

    async def test_a_group_that_others_made_is_seen(
        self, store: RedisStore, subscriptions: RedisSubscriptions
    ):
        first, second, *_ = await filled(store, 1, 3)
        events = PartitionKeys(1).events
        await send(store.client, ("XGROUP", "CREATE", events, "theirs", "0"))
        asked = ("XREADGROUP", "GROUP", "theirs", "one", "COUNT", "2", "STREAMS", events, ">")
        await send(store.client, asked)

        [group] = (await subscriptions.view(1)).foreign

        assert (group.name, group.delivered, group.oldest_pending) == ("theirs", second, first)
        assert group.pending == 2
        assert order_of(group.passed) < order_of(first)
        await send(store.client, ("XACK", events, "theirs", first, second))
        [group] = (await subscriptions.view(1)).foreign
        assert (group.pending, group.passed) == (0, second)

    async def test_a_key_that_holds_something_else_is_named(
        self, store: RedisStore, subscriptions: RedisSubscriptions
    ):
        await send(store.client, ("SET", SUBSCRIPTIONS, "?"))

        with pytest.raises(ForeignKey, match="subscriptions"):
            await subscriptions.register("billing", a_group())

    async def test_what_cannot_be_read_is_passed_over(
        self, store: RedisStore, subscriptions: RedisSubscriptions
    ):
        await send(store.client, ("HSET", SUBSCRIPTIONS, "broken", "{"))
        await subscriptions.claim(0, TAG, "m1", LONG_MS, START)
        checkpoints = PartitionKeys(0).checkpoints
        await send(store.client, ("HSET", checkpoints, f"{TAG}:at", "nonsense"))

        assert await subscriptions.groups() == {}
        assert (await subscriptions.view(0)).readings == {}


class TestOnValkey(OnAServer):
    @pytest.fixture
    def url(self, valkey_url: str) -> str:
        return valkey_url


class TestOnRedis(OnAServer):
    @pytest.fixture
    def url(self, redis_url: str) -> str:
        return redis_url
