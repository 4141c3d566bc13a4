"""Another ledger as what events are sent to: its tasks live the same lives once more.

Ids, versions, times, actors are as they were; positions and commits are the other ledger's own. No
callback is posted again: `callback_url` is left out of what is submitted. What concerns the service
as a whole, such as pauses, is not repeated.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from api.replay.emit import written_at_once
from api.replay.sinks import SinkFailed
from ledger.codec import Meta, Undecodable, decode_meta
from ledger.events import Event, TaskSubmitted
from ledger.evolve import evolve, initial
from ledger.redis_calls import ForeignKey, StoreOptions
from ledger.redis_connection import ServerRefused
from ledger.redis_store import LedgerMismatch, RedisStore
from ledger.rejections import Rejection
from ledger.settings_sources import masked
from ledger.store import Append, Conflict, Recorded, Written
from ledger.task import Task
from ledger.transitions import IllegalTransition

KNOWN_MAX: Final = 1_000
"""Tasks that are remembered, payloads and all; others are loaded."""


class _Step(msgspec.Struct, frozen=True):
    """What was written at once, of one task."""

    task_id: str
    meta: Meta
    events: tuple[Recorded, ...]


class OtherLedger:
    """A Sink. What it has already is stepped over, so that a replay that broke off may begin again.

    `send` raises SinkFailed where its task is not what it was in the first ledger, and where it is
    out of reach.
    """

    def __init__(self, url: str, source_epoch: str, partitions: int) -> None:
        self._url = url
        self._source_epoch = source_epoch
        self._options = StoreOptions(partitions=partitions)
        self._store: RedisStore | None = None
        self._known: OrderedDict[str, Task] = OrderedDict()

    async def send(self, events: Sequence[Recorded]) -> None:
        try:
            store = self._store or await self._open()
            for step in _steps(events):
                await self._repeat(store, step)
        except (Rejection, LedgerMismatch, ServerRefused, ForeignKey, ValueError) as error:
            raise SinkFailed(f"{masked(self._url)}: {error}") from error
        except (Undecodable, IllegalTransition) as error:
            raise SinkFailed(f"an event cannot be repeated: {error}") from error

    async def close(self) -> None:
        if self._store is not None:
            await self._store.close()

    async def _open(self) -> RedisStore:
        self._store = store = await RedisStore.open(self._url, self._options)
        if await store.epoch() == self._source_epoch:
            raise ValueError("this is the ledger that the events are read from")
        return store

    async def _repeat(self, store: RedisStore, step: _Step) -> None:
        first, last = step.events[0], step.events[-1]
        before = self._known.get(step.task_id) or await store.load(step.task_id)
        version = 0 if before is None else before.version
        if version >= last.version:
            return
        if version != first.version - 1:
            raise ValueError(
                f"task {step.task_id} is at version {version} there, and {first.position} is its"
                f" version {first.version}: begin the replay earlier, or with an empty ledger"
            )
        after, happened = before, list[Event]()
        for recorded in step.events:
            event = _without_callback(recorded.event())
            happened.append(event)
            after = (
                initial(step.task_id, event, recorded.at)
                if after is None
                else evolve(after, event, recorded.at)
            )
        assert after is not None  # noqa: S101 - a step has events
        outcome = await store.append(Append(before, after, tuple(happened), step.meta))
        if isinstance(outcome, Conflict):
            raise ValueError(
                f"task {step.task_id} was changed by somebody else meanwhile: let no workers and no"
                " scheduler run there, and begin with an empty ledger"
            )
        if not isinstance(outcome, Written):
            raise ValueError(f"task {step.task_id} cannot be started: remove the limits there")
        self._remember(after)

    def _remember(self, task: Task) -> None:
        self._known.pop(task.id, None)
        if not task.finished:
            self._known[task.id] = task
            if len(self._known) > KNOWN_MAX:
                self._known.popitem(last=False)


def _steps(events: Sequence[Recorded]) -> Iterator[_Step]:
    """What each append wrote. Raises Undecodable."""
    tasks = [event for event in events if not event.of_system]
    for group in written_at_once(tasks):
        meta = replace(decode_meta(group[0].meta), commit="")
        yield _Step(group[0].task_id, meta, tuple(group))


def _without_callback(event: Event) -> Event:
    if isinstance(event, TaskSubmitted) and event.callback_url is not None:
        return replace(event, callback_url=None)
    return event
