"""Removes what an erased task was about from its log: the leaves stay, and with them every proof.

Whoever erases holds the partition's lease, as whoever seals it does: a bundle of data is written
whole, and must not be written by two. It is asked before each change whether it still does; and
nothing is deleted that a later checkpoint may need, should it have lost the lease in between.
"""

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import msgspec
import structlog

from ledger.archive import tiles
from ledger.archive.compression import compress, decompress
from ledger.archive.leaf import Leaf
from ledger.archive.reader import Damaged, SealedLog, log_prefix
from ledger.archive.tiles import TILE_WIDTH, Stored
from ledger.erasure import redacted_data
from ledger.events import TaskErased, TaskSubmitted
from ledger.objects import ObjectStore, is_upload_key, task_of
from ledger.store import Position, Recorded

log = structlog.get_logger("archive")

NO_SALT: Final = b""
_ERASED: Final = b'"type":"TaskErased"'


class _Payload(msgspec.Struct, frozen=True):
    file_path: str = ""


class _Submitted(msgspec.Struct, frozen=True):
    payload: _Payload = _Payload()


_submitted_of = msgspec.json.Decoder(_Submitted).decode


class CannotErase(Exception):
    """An event that cannot be erased as was decided; says which and why."""


async def erasures_in(sealed: SealedLog, start: int) -> list[int]:
    """The leaves from `start` on that are of a TaskErased, those of one bundle at most."""
    number, first = divmod(start, TILE_WIDTH)
    entries = await sealed.entries(number)
    return [
        number * TILE_WIDTH + at
        for at in range(first, len(entries))
        if _ERASED in entries[at]
        and (await sealed.leaf(number * TILE_WIDTH + at)).type == TaskErased.__name__
    ]


class Eraser:
    """Carries out erasures of one log, as it is at a checkpoint. Whatever it is interrupted in may
    be done again. Every method may raise ObjectStoreError, Damaged, Incomplete,
    CannotErase."""

    def __init__(
        self,
        objects: ObjectStore,
        epoch: str,
        sealed: SealedLog,
        may_change: Callable[[], Awaitable[None]],
    ) -> None:
        """`may_change`: raises LostFence when somebody else seals the log by now. It is asked
        before each write and delete."""
        self._objects = objects
        self._sealed = sealed
        self._may_change = may_change
        self._prefix = log_prefix(epoch, sealed.partition)

    async def events_of(self, index: int) -> list[tuple[int, Leaf]]:
        """The events whose data the TaskErased at `index` has removed: their leaves."""
        erased = await self._sealed.event(index)
        redacted = _redacted_by(erased)
        leaves = [leaf for leaf in await self._sealed.leaves_of(erased.task_id) if leaf < index]
        found = [(each, await self._sealed.leaf(each)) for each in leaves]
        return [(each, leaf) for each, leaf in found if str(leaf.version) in redacted]

    async def remove(self, index: int) -> list[Position]:
        """Remove what the TaskErased at `index` says, and the task's uploaded file; the positions
        of the events that lost something."""
        erased = await self._sealed.event(index)
        redacted = _redacted_by(erased)
        events = await self.events_of(index)
        # First: once the payload is gone, nothing says where its file lies.
        await self._remove_uploads(erased.task_id, events)
        by_bundle: dict[int, list[tuple[int, Leaf]]] = {}
        for each, leaf in events:
            by_bundle.setdefault(each // TILE_WIDTH, []).append((each, leaf))
        for number, some in by_bundle.items():
            await self._redact(number, some, redacted)
        return [leaf.position for _, leaf in events]

    async def _redact(
        self, number: int, events: Sequence[tuple[int, Leaf]], redacted: Mapping[str, str]
    ) -> None:
        found = await self._sealed.stored(number)
        stored = list(found)
        for index, leaf in events:
            at = index % TILE_WIDTH
            if stored[at].erased:
                continue
            left = redacted_data(leaf.type, await self._sealed.data(index, stored[at]))
            if hashlib.sha256(left).hexdigest() != redacted[str(leaf.version)]:
                # Another version of ledgerq may leave something else; what was sealed counts.
                raise CannotErase(
                    f"what is left of the data of {leaf.position} is not what its erasure says"
                )
            stored[at] = Stored(NO_SALT, left, erased=True)
        width = len(stored)
        if stored != found:
            await self._write(self._prefix + tiles.data_name(number, width), stored)
        narrower, wider = await self._others(number, width)
        left = {index % TILE_WIDTH: stored[index % TILE_WIDTH] for index, _ in events}
        for key in wider:
            await self._redact_in_place(key, left)
        for index, _ in events:
            await self._delete(self._prefix + tiles.apart_name(index))
        for key in narrower:
            await self._delete(key)

    async def _others(self, number: int, width: int) -> tuple[list[str], list[str]]:
        """Keys of the same bundle's other objects, which have the data still: narrower ones, which
        no checkpoint needs from this one on; and wider ones, by a writer that was killed before it
        signed, or, if the lease is lost, by one that did sign."""
        whole = self._prefix + tiles.data_name(number)
        narrower, wider = list[str](), list[str]()
        async for page in self._objects.listed(f"{whole}.p"):
            for each in page:
                found = each.key.rpartition("/")[2]
                if found.isascii() and found.isdigit() and int(found) != width:
                    (narrower if int(found) < width else wider).append(each.key)
        if width < TILE_WIDTH:
            wider.append(whole)
        return narrower, wider

    async def _redact_in_place(self, key: str, left: Mapping[int, Stored]) -> None:
        """All else in the object stays as it is: it may be what the log rests on."""
        try:
            packed = await self._objects.read(key)
        except FileNotFoundError:
            return
        try:
            found = tiles.unpack_data(decompress(packed))
        except ValueError as error:
            raise Damaged(key, str(error)) from error
        redacted = [left.get(at, each) for at, each in enumerate(found)]
        if redacted != found:
            await self._write(key, redacted)

    async def _write(self, key: str, stored: Sequence[Stored]) -> None:
        await self._may_change()
        await self._objects.write(key, compress(tiles.pack_data(stored)))

    async def _delete(self, key: str) -> None:
        await self._may_change()
        await self._objects.delete(key)

    async def _remove_uploads(self, task_id: str, events: Sequence[tuple[int, Leaf]]) -> None:
        for index, leaf in events:
            if leaf.type != TaskSubmitted.__name__:
                continue
            number, at = divmod(index, TILE_WIDTH)
            stored = (await self._sealed.stored(number))[at]
            if stored.erased:
                continue
            key = _file_of(await self._sealed.data(index, stored))
            if is_upload_key(key) and task_of(key) == task_id:
                await self._delete(key)
                log.info("upload_erased", task_id=task_id, key=key)


def _redacted_by(erased: Recorded) -> Mapping[str, str]:
    event = erased.event()
    assert isinstance(event, TaskErased)  # noqa: S101 - its leaf says so
    return event.redacted


def _file_of(submitted: bytes) -> str:
    try:
        return _submitted_of(submitted).payload.file_path
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""
