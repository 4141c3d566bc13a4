"""Logs for tests of the archive: events as they stand in a ledger, and logs that were sealed."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final
from uuid import UUID

from ledger.archive.keys import KeyFile
from ledger.archive.reader import Archive
from ledger.archive.writer import LogWriter
from ledger.identity import SYSTEM
from ledger.objects import ObjectStore
from ledger.store import Position, Recorded

EPOCH: Final = "0123456789abcdef" * 2
START_MS: Final = 1_763_811_000_000

LIFE: Final = (
    ("TaskSubmitted", b'{"task_type":"health_check","kb_id":"kb","payload":{"n":%d}}'),
    ("TaskStarted", b'{"attempt":1,"worker_id":"host-%d","lease_ms":15000}'),
    ("TaskProgressed", b'{"attempt":1,"progress":50,"message":"%d"}'),
    ("TaskCompleted", b'{"attempt":1,"result":%d}'),
)


def task_id_of(number: int) -> str:
    """Ids in the order of time, as those that the service makes."""
    by_chance = hashlib.sha256(b"%d" % number).digest()
    made = bytearray((START_MS + number).to_bytes(6, "big") + by_chance[:10])
    made[6] = made[6] & 0x0F | 0x70
    made[8] = made[8] & 0x3F | 0x80
    return str(UUID(bytes=bytes(made)))


def lives(count: int, partition: int = 0, *, at_once: int = 7) -> list[Recorded]:
    """So many events of a partition: tasks that come, go on side by side, and end."""
    return list(_lives(count, partition, at_once))


def _lives(count: int, partition: int, at_once: int) -> Iterator[Recorded]:
    live = [[number, 0, ""] for number in range(at_once)]
    following = at_once
    for number in range(count):
        life = live[number * 5 % at_once]
        task, step, prev = int(life[0]), int(life[1]), str(life[2])
        entry = f"{START_MS + number // 3}-{number % 3}"
        kind, data = LIFE[step]
        meta = b'{"actor":"tests","commit":"c-%d"}' % number
        yield Recorded(
            Position(partition, entry),
            kind,
            task_id_of(task),
            step + 1,
            START_MS + number // 3,
            data % task,
            meta,
            prev,
        )
        life[1:] = [step + 1, entry]
        if step + 1 == len(LIFE):
            life[:] = [following, 0, ""]
            following += 1


def system_event(number: int, prev: str = "") -> Recorded:
    """One of the service as a whole."""
    entry = f"{START_MS + number}-0"
    data = b'{"task_type":"health_check","reason":""}'
    return Recorded(
        Position(0, entry), "QueuePaused", SYSTEM, number, START_MS, data, b'{"commit":"s"}', prev
    )


async def may_sign() -> None:
    """Nothing speaks against it."""


def key_file(folder: Path) -> KeyFile:
    """One with a key."""
    keys = KeyFile(folder / "archive.key")
    keys.make()
    return keys


async def opened(objects: ObjectStore, keys: KeyFile, partition: int = 0) -> LogWriter:
    """A writer of a partition's log."""
    writer = LogWriter(Archive(objects, EPOCH, 1), partition, keys)
    await writer.open()
    return writer


async def seal(writer: LogWriter, events: Sequence[Recorded], cut: int) -> None:
    """Seal events, so many with each checkpoint."""
    for at in range(0, len(events), cut):
        assert await writer.add(events[at : at + cut]) == []
        await writer.seal(may_sign)


async def read_back(objects: ObjectStore) -> list[Recorded]:
    """All events of the log as it is now."""
    log = await Archive(objects, EPOCH, 1).log(0)
    assert log is not None
    return [event async for some in log.events() for event in some]
