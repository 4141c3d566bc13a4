"""The counts that limits go by, on a server: whether they are right, and putting them right.

They are kept up step by step with everything that stands in line or runs. So a ledger that is older
than limits, or whose counts were damaged or lost, would stay wrong: too few let more run than a
limit says, too many keep places that nobody has.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
import structlog

from ledger.keys import PartitionKeys
from ledger.redis_calls import LedgerCalls
from ledger.redis_connection import Script
from ledger.script_format import PRIORITIES, read_lease

log = structlog.get_logger("ledger")

COUNTED = Script("counted", after=("queues",))
RECOUNT = Script("recount", after=("queues",))
LOAD = Script("load")

RECOUNTED_TASKS_MAX: Final = 100_000
"""Tasks in line and running in one partition; with more, the counts stay as they are until there
are fewer."""

READ_TOGETHER: Final = 64
"""Submissions, whose payloads come with them."""

_NUMBER: Final = re.compile(rb"-?\d{1,15}")


class _Owner(msgspec.Struct, frozen=True):
    """What of a submission counts against limits."""

    task_type: str
    kb_id: str


_decode_owner = msgspec.json.Decoder(_Owner).decode


class RedisRecount(LedgerCalls):
    """The Store's part in keeping its own counts honest."""

    async def recount(self, partition: int) -> int:
        names = self._keys[partition]
        told = await self._call_queues(
            COUNTED, names, (PRIORITIES, RECOUNTED_TASKS_MAX), (names.leases,)
        )
        if len(told) < 4:
            if told:
                log.warning("too_many_to_recount", partition=partition, most=RECOUNTED_TASKS_MAX)
            return 0
        recounts, counts, running, staged = told
        found = await self._owners(names, running, staged)
        changes = _differences(dict(zip(counts[::2], counts[1::2], strict=True)), found)
        if not changes:
            return 0
        flat = (part for pair in changes.items() for part in pair)
        done = await self._call_queues(RECOUNT, names, (PRIORITIES, recounts, *flat))
        return len(changes) if done else 0

    async def _owners(
        self, names: PartitionKeys, running: Sequence[bytes], staged: Sequence[bytes]
    ) -> Counter[bytes]:
        """How many tasks count for each name. A task's type and kb_id never change, so they may be
        read later than what was counted."""
        found: Counter[bytes] = Counter()
        unknown = [read_lease(member)[0] for member in running]
        for kind, kb_id, task in zip(staged[::3], staged[1::3], staged[2::3], strict=True):
            if kb_id:
                found.update((kind, b"kb:" + kb_id))
            else:
                unknown.append(task.decode(errors="replace"))
        for first in range(0, len(unknown), READ_TOGETHER):
            some = unknown[first : first + READ_TOGETHER]
            found.update(
                _names_in(await asyncio.gather(*(self._submission(names, t) for t in some)))
            )
        return found

    async def _submission(self, names: PartitionKeys, task_id: str) -> bytes | None:
        # By a script that takes foreign keys for nothing.
        _, submission, _ = await self._call(LOAD, (names.task(task_id),), ())
        return submission


def _names_in(submissions: Iterable[bytes | None]) -> Iterable[bytes]:
    for submission in submissions:
        try:
            owner = _decode_owner(submission or b"")
        except ValueError:
            continue  # nobody can tell what it counted for
        yield f"type:{owner.task_type}".encode()
        yield f"kb:{owner.kb_id}".encode()


def _differences(counts: dict[bytes, Any], found: Counter[bytes]) -> dict[bytes, int]:
    """By how much each count is too low; 0 where something else stands in its place."""
    changes: dict[bytes, int] = {}
    for name in sorted(counts.keys() | found.keys()):
        stored = counts.get(name, b"0")
        is_number = _NUMBER.fullmatch(stored) is not None
        missing = found[name] - (int(stored) if is_number else 0)
        if missing or not is_number:
            changes[name] = missing
    return changes
