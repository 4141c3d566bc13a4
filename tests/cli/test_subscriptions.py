"""`ledgerq subscriptions`, `remove` and `seek`, on a ledger without a service."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from ledger.keys import SUBSCRIPTIONS
from ledger.redis_connection import send
from ledger.redis_store import RedisStore
from ledger.redis_subscriptions import RedisSubscriptions
from ledger.subscriptions import Checkpoint, Filters, Group
from tests.cli.running import Call
from tests.contracts.store import submit

TAG = "billing/g1"


def on(url: str, work: Callable[[RedisStore, RedisSubscriptions], Awaitable[Any]]) -> Any:
    """Do it on the ledger, before or after a command."""

    async def run() -> Any:
        store = await RedisStore.open(url)
        try:
            return await work(store, RedisSubscriptions(store.client, 1, 5_000))
        finally:
            await store.close()

    return asyncio.run(run())


@pytest.fixture
def followed(empty_url: str) -> str:
    """A ledger of three events, and a group at its beginning."""

    async def make(store: RedisStore, subscriptions: RedisSubscriptions) -> None:
        group = Group("g1", await store.epoch(), 1, Filters(), (Checkpoint(),))
        await subscriptions.register("billing", group)
        for _ in range(3):
            await submit(store)

    on(empty_url, make)
    return empty_url


def test_nobody_follows(ledgerq: Call, empty_url: str):
    on(empty_url, lambda store, _: store.epoch())

    ran = ledgerq("subscriptions", "--redis", empty_url)

    assert ran.code == 0
    assert "nobody follows the ledger" in ran.err


def test_a_subscription_is_listed(ledgerq: Call, followed: str):
    ran = ledgerq("subscriptions", "--redis", followed)

    assert ran.code == 0, ran.err
    assert ran.out.split() == ["billing", "3", "0", "0", "0:0-0", "-", "ok"]


def test_json_tells_all_of_it(ledgerq: Call, followed: str):
    told = ledgerq("subscriptions", "--redis", followed, "--json").json()

    assert told["subscriptions"][0]["lag_events"] == 3
    assert told["trimming"][0]["held_by"] == ["billing"]


def test_a_halted_one_is_an_alarm(ledgerq: Call, followed: str):
    async def halt(_store: RedisStore, subscriptions: RedisSubscriptions) -> None:
        await subscriptions.claim(0, TAG, "m1", 1_000, Checkpoint())
        await subscriptions.halt(0, TAG, 1, "the ledger went back")

    on(followed, halt)

    ran = ledgerq("subscriptions", "--redis", followed)
    checked = ledgerq("doctor", "--redis", followed, "--url", "http://127.0.0.1:9", "--json")

    assert ran.code == 1
    assert "halted: the ledger went back" in ran.out
    assert checked.code == 1
    assert "halted: billing" in checked.out


def test_a_subscription_is_removed(ledgerq: Call, followed: str):
    ran = ledgerq("subscriptions", "remove", "billing", "--redis", followed)

    assert ran.code == 0, ran.err
    assert "billing was at 0:0-0" in ran.out
    assert on(followed, lambda _, subscriptions: subscriptions.groups()) == {}


def test_a_subscription_that_cannot_be_read_is_removed(ledgerq: Call, followed: str):
    async def break_it(store: RedisStore, subscriptions: RedisSubscriptions) -> None:
        await subscriptions.claim(0, TAG, "m1", 1_000, Checkpoint())
        await send(store.client, ("HSET", SUBSCRIPTIONS, "billing", "{"))

    on(followed, break_it)

    ran = ledgerq("subscriptions", "remove", "billing", "--redis", followed)

    assert ran.code == 0, ran.err
    assert "billing is removed; where it was could not be read" in ran.out
    assert on(followed, lambda _, subscriptions: subscriptions.view(0)).readings == {}
    again = ledgerq("subscriptions", "remove", "billing", "--redis", followed)
    assert "there is no subscription 'billing'" in again.err


@pytest.mark.parametrize(("to", "lag"), [("now", 0), ("beginning", 3), ("2020-01-01T00:00:00Z", 3)])
def test_a_subscription_goes_on_elsewhere(ledgerq: Call, followed: str, to: str, lag: int):
    ran = ledgerq("subscriptions", "seek", "billing", "--to", to, "--redis", followed)

    assert ran.code == 0, ran.err
    assert "billing goes on after 0:" in ran.out
    told = ledgerq("subscriptions", "--redis", followed, "--json").json()
    assert told["subscriptions"][0]["lag_events"] == lag


def test_a_place_that_is_none_is_refused(ledgerq: Call, followed: str):
    ran = ledgerq("subscriptions", "seek", "billing", "--to", "yesterday", "--redis", followed)

    assert ran.code == 1
    assert "--to: expected 'beginning', 'now', a position" in ran.err


@pytest.mark.parametrize("command", [("remove", "search"), ("seek", "search", "--to", "now")])
def test_a_name_that_is_none_is_told(ledgerq: Call, followed: str, command: tuple[str, ...]):
    ran = ledgerq("subscriptions", *command, "--redis", followed)

    assert ran.code == 1
    assert "there is no subscription 'search'" in ran.err
