"""kill -9 of a subscriber, and of the server that it reads; and a server that comes back without
its newest events.

Nothing may be missed, and each partition is told in order, by whoever has it.
"""

import asyncio
import contextlib
import shutil
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from pathlib import Path

import pytest

import consumers
from consumers.subscription import Subscription, subscribe
from ledger.redis_store import RedisStore, StoreOptions
from ledger.store import Position
from tests.contracts.store import submit
from tests.faults.program import ROOT
from tests.servers import PERSISTENT, Server, make_server, valkey_binary

PARTITIONS = 4
TASKS = 400
HANGS_AFTER = 60
LEASE_MS = 1_000
PATIENCE_S = 40

PATIENT = StoreOptions(partitions=PARTITIONS, timeout_ms=15_000)


class Member:
    """A process, and what it has said so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.given: list[Position] = []
        self.done: set[Position] = set()

    @classmethod
    async def started(cls, url: str, hangs_after: int = 0) -> "Member":
        return cls(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.faults.subscriber"),
                *(url, str(LEASE_MS), str(hangs_after)),
                cwd=ROOT,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
        )

    async def hear(self) -> None:
        """Take in the next thing that it says."""
        assert self.process.stdout is not None
        line = (await self.process.stdout.readline()).decode()
        assert line, f"the subscriber ended with {self.process.returncode}"
        what, position = line.split()
        if what == "given":
            self.given.append(Position.parse(position))
        else:
            self.done.add(Position.parse(position))

    async def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        # What was in the pipe was said before.
        with contextlib.suppress(AssertionError):
            while True:
                await self.hear()

    @property
    def is_in_order(self) -> bool:
        """Within each partition."""
        return all(
            [p.order for p in self.given if p.partition == partition]
            == sorted(p.order for p in self.given if p.partition == partition)
            for partition in range(PARTITIONS)
        )


@contextlib.asynccontextmanager
async def member(url: str, hangs_after: int = 0) -> AsyncGenerator[Member]:
    started = await Member.started(url, hangs_after)
    try:
        yield started
    finally:
        await started.kill()


@pytest.fixture
def server() -> Iterator[Server]:
    """A Valkey that answers a write after its fsync."""
    with make_server(valkey_binary(), *PERSISTENT) as server:
        yield server


@pytest.fixture
async def store(server: Server) -> AsyncIterator[RedisStore]:
    store = await RedisStore.open(server.url, PATIENT)
    yield store
    await store.close()


async def all_submitted(store: RedisStore, count: int = TASKS) -> set[Position]:
    """So many tasks; where their submissions are."""
    await asyncio.gather(*(submit(store) for _ in range(count)))
    found: set[Position] = set()
    for partition in range(PARTITIONS):
        events = await store.events_after(Position(partition, "0-0"), 10 * count, 1)
        found |= {event.position for event in events if event.type == "TaskSubmitted"}
    return found


async def test_what_a_killed_subscriber_had_not_done_is_done_by_another(
    server: Server, store: RedisStore, capsys: pytest.CaptureFixture[str]
):
    positions = await all_submitted(store)
    async with asyncio.timeout(PATIENCE_S), member(server.url, HANGS_AFTER) as one:
        await one.hear()
        async with member(server.url) as two:
            while len(one.given) <= HANGS_AFTER:
                await one.hear()
            await one.kill()
            while not positions <= one.done | two.done:
                await two.hear()

    undone = set(one.given) - one.done
    with capsys.disabled():
        sys.stdout.write(
            f"\nkill -9 of a subscriber: {len(positions)} events, 0 missed, {len(undone)} given to"
            " it and not acknowledged, all of them given again\n"
        )
    assert undone
    assert undone <= set(two.given)
    assert one.is_in_order
    assert two.is_in_order


async def test_a_subscriber_lives_through_kills_of_the_server(server: Server, store: RedisStore):
    async with asyncio.timeout(PATIENCE_S), member(server.url) as one:
        positions = await all_submitted(store, TASKS // 2)
        while len(one.done) < TASKS // 4:
            await one.hear()

        server.kill()
        server.start()

        positions |= await all_submitted(store, TASKS // 2)
        while not positions <= one.done:
            await one.hear()


# -- a server without its newest events -----------------------------------------------------------


def following(store: RedisStore) -> Subscription:
    return subscribe("billing", start="beginning", store=store, lease_ms=LEASE_MS)


def saved(server: Server, folder: Path) -> None:
    """Keep what is on its disk now."""
    server.kill()
    shutil.copytree(_data(server), folder, ignore=lambda _, names: [n for n in names if n == "s"])


def restore(server: Server, folder: Path) -> None:
    server.kill()
    shutil.rmtree(_data(server) / "appendonlydir")
    shutil.copytree(folder, _data(server), dirs_exist_ok=True)
    server.start()


def _data(server: Server) -> Path:
    return Path(server.url.removeprefix("unix://")).parent


async def test_a_server_that_lost_its_newest_events_stops_the_group(
    server: Server, store: RedisStore, tmp_path: Path
):
    async with asyncio.timeout(PATIENCE_S), following(store) as subscription:
        events = aiter(subscription)
        await submit(store)
        await (await anext(events)).ack()
        saved(server, tmp_path / "saved")
        server.start()
        for _ in range(8):
            await submit(store)
            await (await anext(events)).ack()

        restore(server, tmp_path / "saved")

        with pytest.raises(consumers.LedgerWentBack, match="partition"):
            while True:
                await submit(store)
                await (await anext(events)).ack()

    with pytest.raises(consumers.SubscriptionHalted):
        async with asyncio.timeout(PATIENCE_S), following(store) as again:
            await anext(aiter(again))


async def test_a_server_that_comes_back_empty_stops_the_group(tmp_path: Path):
    with make_server(valkey_binary()) as server:
        store = await RedisStore.open(server.url, PATIENT)
        try:
            async with asyncio.timeout(PATIENCE_S), following(store) as subscription:
                events = aiter(subscription)
                await submit(store)
                await (await anext(events)).ack()

                server.kill()
                server.start()

                with pytest.raises(consumers.LedgerWentBack, match="another ledger now"):
                    await anext(events)
        finally:
            await store.close()
