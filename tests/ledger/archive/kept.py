"""An archive in memory, small, with something of everything, to be tampered with and verified."""

from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from msgspec.structs import replace

from ledger.archive.keys import KeyFile
from ledger.archive.notes import Verifier
from ledger.archive.reader import log_prefix
from ledger.archive.verify.faults import Faults, LogReport
from ledger.archive.verify.log import LogCheck, Options
from ledger.archive.verify.stream import StreamCheck
from ledger.objects import Listed, ObjectStore
from ledger.store import Entry, Extent, Position, Recorded
from tests.ledger.archive.sealed import EPOCH, lives, opened, seal

PREFIX = log_prefix(EPOCH, 0)
LARGE = b'{"task_type":"health_check","kb_id":"kb","payload":{"text":"%b"}}' % (b"large " * 3_000)


class Kept:
    """Objects in memory, for tests that read the same ones thousands of times."""

    def __init__(self, objects: dict[str, bytes] | None = None) -> None:
        self.objects = dict(objects or {})

    async def put(self, key: str, source: Path, content_type: str) -> None:
        raise NotImplementedError("nothing that writes archives has files")

    async def write(self, key: str, data: bytes) -> None:
        self.objects[key] = data

    async def read(self, key: str) -> bytes:
        try:
            return self.objects[key]
        except KeyError:
            raise FileNotFoundError(key) from None

    async def read_range(self, key: str, start: int, length: int) -> bytes:
        return (await self.read(key))[start : start + length]

    async def write_all(self, objects: Sequence[tuple[str, bytes]]) -> None:
        self.objects.update(objects)

    async def read_all(self, keys: Sequence[str]) -> list[bytes]:
        return [await self.read(key) for key in keys]

    async def delete(self, key: str) -> None:
        self.objects.pop(key, None)

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        yield await self.read(key)

    def pieces(self, key: str) -> Iterator[bytes]:
        yield self.objects[key]

    async def listed(self, prefix: str) -> AsyncIterator[list[Listed]]:
        now = datetime.now(UTC)
        names = [key for key in self.objects if key.startswith(prefix)]
        yield [Listed(key, len(self.objects[key]), now) for key in names]

    async def folders(self, prefix: str) -> list[str]:
        below = [key.removeprefix(f"{prefix}/") for key in self.objects if key.startswith(prefix)]
        return sorted({name.partition("/")[0] for name in below if "/" in name})

    def path(self, key: str) -> Path | None:
        return None

    async def close(self) -> None:
        pass

    def but(self, **changes: bytes | None) -> "Kept":
        """The same with other objects, by name; None: without it."""
        changed = Kept(self.objects)
        for name, packed in changes.items():
            if packed is None:
                del changed.objects[PREFIX + name]
            else:
                changed.objects[PREFIX + name] = packed
        return changed

    def __getitem__(self, name: str) -> bytes:
        return self.objects[PREFIX + name]

    @property
    def names(self) -> list[str]:
        return sorted(key.removeprefix(PREFIX) for key in self.objects)


def some_events(count: int) -> list[Recorded]:
    """Those of `lives`, some with much data."""
    return [
        replace(event, data=LARGE) if event.type == "TaskSubmitted" and number % 97 == 3 else event
        for number, event in enumerate(lives(count))
    ]


async def sealed(events: Sequence[Recorded], keys: KeyFile, *cuts: int, rotate_at: int = 0) -> Kept:
    """An archive with a checkpoint at each of these sizes; with one of them, the key changes."""
    kept = Kept()
    writer = await opened(kept, keys)
    for start, end in zip([0, *cuts], cuts, strict=False):
        if rotate_at and start == rotate_at:
            keys.rotate()
        await seal(writer, events[start:end], end - start)
    return kept


async def verified(
    objects: ObjectStore, options: Options | None = None, stream: Sequence[Recorded] | None = None
) -> LogReport:
    """What is found of it; `stream` is what the ledger still has."""
    faults = Faults()
    beside = None if stream is None else _beside(stream, faults)
    check = LogCheck(objects, EPOCH, 0, options or Options(), beside, faults, _nothing)
    return await check.run()


def keys_of(file: KeyFile) -> tuple[Verifier, ...]:
    """The public keys, the newest last."""
    return tuple(file.keys().verifiers(f"ledgerq/{EPOCH}/0"))


def _nothing(_: int) -> None:
    pass


def _beside(events: Sequence[Recorded], faults: Faults) -> StreamCheck:
    """`events` may change while they are read."""
    last, added = events[-1].position, len(events)

    async def read(position: Position, count: int) -> list[Entry]:
        after = [each for each in events if each.position.order > position.order]
        return [_entry(each) for each in after[:count]]

    async def extent() -> Extent:
        is_whole = len(events) >= added
        first = Position(0, "0-0") if is_whole else events[0].position if events else last
        return Extent(first, max([last, *(each.position for each in events)], key=_order), added)

    return StreamCheck(0, read, extent, faults)


def _order(position: Position) -> tuple[int, int]:
    return position.order


def _entry(event: Recorded) -> Entry:
    fields = {
        b"type": event.type.encode(),
        b"task": event.task_id.encode(),
        b"version": b"%d" % event.version,
        b"at": b"%d" % event.at,
        b"data": event.data,
        b"meta": event.meta,
        b"prev": event.prev.encode(),
    }
    return event.position.entry.encode(), [part for pair in fields.items() for part in pair]
