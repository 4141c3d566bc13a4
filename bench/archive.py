"""The archiver on a full stream, beside reading that with redis-py and doing nothing, and beside
the appends of one busy process; and how many bytes of the archive an event takes."""

import asyncio
import base64
import itertools
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
from uuid_utils import uuid7

from bench.children import child
from bench.folders import new_folder
from bench.history import write_history
from bench.measure import Goal, Measured, alternate, plain_row, row
from bench.rebuild import FLOOR, read_all
from bench.roles import Options
from bench.scale import Scale
from bench.servers import BenchServer, run_server
from bench.submit import CALLERS
from bench.workload import submit
from ledger.archive.keys import KeyFile
from ledger.archive.reader import Archive
from ledger.archive.writer import LogWriter
from ledger.codec import Meta, encode
from ledger.events import Event, TaskCompleted, TaskProgressed, TaskStarted, TaskSubmitted
from ledger.keys import PartitionKeys
from ledger.objects.local_folder import LocalFolder
from ledger.redis_connection import send
from ledger.store import Position, Recorded

SEAL_TIMEOUT_S: Final = 900.0
RATIO_GOAL: Final = Goal(ratio_min=0.25)
KEEPS_UP: Final = Goal(ratio_min=1.0)
BYTES_GOAL: Final = Goal(figure_max=200.0)
APPENDED: Final = "the same submissions, through `transact` in one process, 100 callers"

SIZED_TASKS: Final = 20_000
SIDE_BY_SIDE: Final = 100
SEALED_AT_ONCE: Final = 8_192
PAYLOAD_BYTES: Final = 200
EPOCH: Final = "be9c" * 8


async def run(scale: Scale) -> Sequence[Measured]:
    """Rounds of each figure and its floor in turn, each archiver in a process of its own."""
    async with run_server("memory") as server:
        return [
            await _beside_reading(server, scale),
            await _beside_appends(server, scale),
            await _bytes(),
        ]


async def _beside_reading(server: BenchServer, scale: Scale) -> Measured:
    async with server.store():
        pass  # makes the ledger
    events = await asyncio.to_thread(write_history, server.url, scale.history_tasks)

    async def floor() -> float:
        return events / await asyncio.to_thread(read_all, server.url, events)

    async def figure() -> float:
        return events / await _seal_s(server, events)

    pairs = await alternate(scale.rebuild_rounds, floor, figure)
    title = f"sealing {events:,} events"
    return row(title, "events/s", pairs, floor_name=FLOOR, goal=RATIO_GOAL)


async def _beside_appends(server: BenchServer, scale: Scale) -> Measured:
    count = 3 * scale.submissions

    async def floor() -> float:
        await server.empty()
        async with server.store() as store:
            began, ended = await submit(store, count, CALLERS)
        return count / (ended - began)

    async def figure() -> float:
        return count / await _seal_s(server, count)

    pairs = await alternate(scale.rounds, floor, figure)
    title = f"sealing {count:,} submissions"
    return row(title, "events/s", pairs, floor_name=APPENDED, goal=KEEPS_UP)


async def _seal_s(server: BenchServer, events: int) -> float:
    """Seconds from the word until everything is in an archive of its own, and was read back."""
    await send(server.client, ("DEL", PartitionKeys(0).archive))
    options = Options(server.url, count=events, data_dir=str(new_folder()))
    async with child("archiver", options) as role:
        role.begin()
        worked = await role.worked(SEAL_TIMEOUT_S)
    return worked.ended - worked.began


async def _bytes() -> Measured:
    """Every object counted, whatever it is for."""
    folder = new_folder()
    events = await _seal_lives(folder)
    total = await asyncio.to_thread(_bytes_in, folder / "objects")
    title = f"bytes of an event: tasks of five, a payload of {PAYLOAD_BYTES}"
    return plain_row(title, "B", [total / events], goal=BYTES_GOAL)


async def _seal_lives(folder: Path) -> int:
    keys = KeyFile(folder / "archive.key")
    keys.make()
    objects = LocalFolder(folder / "objects")
    writer = LogWriter(Archive(objects, EPOCH, 1), 0, keys)
    await writer.open()
    lives = _lives(random.Random(1))  # noqa: S311 - so that each run is the same
    while some := list(itertools.islice(lives, SEALED_AT_ONCE)):
        await writer.add(some)
        await writer.seal(_may_sign)
    await objects.close()
    return writer.size


async def _may_sign() -> None:
    pass


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _lives(chance: random.Random) -> Iterator[Recorded]:
    """Tasks of five events each, many of them side by side; no two payloads have anything in
    common, and none can be compressed by more than a quarter."""
    at = time.time_ns() // 1_000_000
    live: list[tuple[str, Iterator[Event]]] = []
    last: dict[str, tuple[int, str]] = {}
    started = 0
    for number in itertools.count():
        while len(live) < SIDE_BY_SIDE and started < SIZED_TASKS:
            live.append((str(uuid7()), _events(chance)))
            started += 1
        if not live:
            return
        chosen = chance.randrange(len(live))
        task_id, events = live[chosen]
        event = next(events, None)
        if event is None:
            del live[chosen], last[task_id]
            continue
        version, prev = last.get(task_id, (0, ""))
        entry = f"{at + number // 20}-{number % 20}"
        last[task_id] = version + 1, entry
        actor = "api" if not version else "host-1-4711-a0b1"
        commit = f"{chance.getrandbits(64) & 0xFFFF:016x}-{number:x}"
        yield Recorded(
            Position(0, entry),
            type(event).__name__,
            task_id,
            version + 1,
            at + number // 20,
            encode(event),
            encode(Meta(actor=actor, commit=commit)),
            prev,
        )


def _events(chance: random.Random) -> Iterator[Event]:
    text = base64.b64encode(chance.randbytes(PAYLOAD_BYTES))[: PAYLOAD_BYTES - len(b'{"text":""}')]
    payload = msgspec.Raw(b'{"text":"%b"}' % text)
    yield TaskSubmitted("document_processing", f"kb-{chance.randrange(40)}", payload)
    yield TaskStarted(1, "host-1-4711-a0b1", 15_000)
    yield TaskProgressed(1, 30, "parsing")
    yield TaskProgressed(1, 80, "embedding")
    yield TaskCompleted(1, msgspec.Raw(b'{"chunks":%d}' % chance.randrange(100)))
