"""GET /api/v1/queues/info: what waits and what runs."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType

from api.describe import (
    LEDGER_POSITION_SEEN,
    LEDGER_POSITION_WANTED,
    PROJECTION_LAG,
    Answer,
    Group,
    operation,
)
from api.exchange import Exchange
from api.known_types import check_types
from api.past import AsOf, PastModels, moment_of
from api.pauses import Paused, pause_view
from api.query import QueryReader
from api.read_model import POSITION_HEADER, ReadModel
from api.scalars import Count, TaskTypeName
from ledger.codec import encode
from ledger.events import Priority
from ledger.placement import Queue
from ledger.settings import Settings
from ledger.store import Store
from ledger.system.state import Pause
from projections.queue_sizes import QueueSize, queue_sizes


class QueueQuery(msgspec.Struct, frozen=True):
    """Which queues are meant: all, those of a type or of a priority, or one."""

    task_type: Annotated[TaskTypeName, Meta(description="Of this type.")] | UnsetType = UNSET
    priority: Annotated[Priority, Meta(description="Of this priority.")] | UnsetType = UNSET
    as_of: AsOf | UnsetType = UNSET


Size = Annotated[Count, Meta(description="Tasks that wait to be taken.")]
Delayed = Annotated[
    Count, Meta(description="Tasks that wait for their time: scheduled, or to be tried again.")
]
Processing = Annotated[Count, Meta(description="Tasks that workers have.")]
OldestAge = Annotated[
    Annotated[float, Meta(ge=0)] | None,
    Meta(description="For how long the oldest of those that wait has; null when none does."),
]


class QueueRow(msgspec.Struct, frozen=True):
    """One queue."""

    task_type: str
    priority: Priority
    size: Size
    delayed: Delayed
    processing: Processing
    oldest_age_seconds: OldestAge
    paused: Paused


class QueueInfo(msgspec.Struct, frozen=True):
    """The queues that were asked for, taken together."""

    queue_size: Size
    queue_key: Annotated[
        str,
        Meta(
            description="What was asked for: `task_queue`, then the type and the priority, where "
            "they were named.",
            examples=["task_queue:high"],
        ),
    ]
    delayed: Delayed
    processing: Processing
    oldest_age_seconds: OldestAge
    queues: Annotated[
        list[QueueRow] | UnsetType,
        Meta(description="Each queue, when neither a type nor a priority was named."),
    ] = UNSET


class QueueInfos:
    """The endpoint; takes an Exchange and answers it, or raises."""

    _reader: Final = QueryReader(QueueQuery)

    def __init__(
        self, store: Store, read_model: ReadModel, past: PastModels, settings: Settings
    ) -> None:
        self._store = store
        self._read_model = read_model
        self._past = past
        self._task_types = settings.known_task_types

    @operation(
        "queuesInfo",
        Group.STATISTICS,
        {200: Answer("What waits and runs.", QueueInfo, (LEDGER_POSITION_SEEN, PROJECTION_LAG))},
        query=QueueQuery,
        headers=(LEDGER_POSITION_WANTED,),
    )
    async def info(self, exchange: Exchange) -> None:
        """Tell what waits and what runs, by type and priority.

        With `as_of`, what did then: see `GET /api/v1/stats/tasks`.
        """
        asked = self._reader.read(exchange)
        if asked.task_type is not UNSET:
            check_types((asked.task_type,), self._task_types)
        if asked.as_of is UNSET:
            sizes, headers = await self._read_model.ask(
                exchange, lambda models, wanted: models.queues(wanted)
            )
            system, now_ms = await self._store.load_system(), self._store.now_ms()
        else:
            self._read_model.insisted(exchange.list_header(POSITION_HEADER))
            now_ms = moment_of(asked.as_of, self._store.now_ms(), self._reader)
            sizes, headers = await self._past.ask(now_ms, queue_sizes)
            system = await self._past.system(now_ms)
        info = self._info(asked, now_ms, sizes, system.state.paused)
        await exchange.respond(200, encode(info), headers)

    def _info(
        self,
        asked: QueueQuery,
        now_ms: int,
        sizes: Sequence[QueueSize],
        paused: Mapping[str, Pause],
    ) -> QueueInfo:
        matching = [
            size
            for size in sizes
            if asked.task_type in (UNSET, size.queue.task_type)
            and asked.priority in (UNSET, size.queue.priority)
        ]
        named = [name for name in (asked.task_type, asked.priority) if name is not UNSET]
        return QueueInfo(
            sum(size.ready for size in matching),
            ":".join(("task_queue", *named)),
            sum(size.delayed for size in matching),
            sum(size.processing for size in matching),
            _age_s(now_ms, (size.oldest_since for size in matching)),
            UNSET if named else self._rows(now_ms, sizes, paused),
        )

    def _rows(
        self, now_ms: int, sizes: Sequence[QueueSize], paused: Mapping[str, Pause]
    ) -> list[QueueRow]:
        """One row for each type and priority, those that are empty too where the type is known or
        paused."""
        found = {size.queue: size for size in sizes}
        others = sorted({*paused, *(queue.task_type for queue in found)})
        types = dict.fromkeys((*self._task_types, *others))
        rows: list[QueueRow] = []
        for queue in (Queue(task_type, priority) for task_type in types for priority in Priority):
            size = found.get(queue) or QueueSize(queue, 0, 0, 0, None)
            rows.append(
                QueueRow(
                    queue.task_type,
                    queue.priority,
                    size.ready,
                    size.delayed,
                    size.processing,
                    _age_s(now_ms, (size.oldest_since,)),
                    pause_view(paused.get(queue.task_type)),
                )
            )
        return rows


def _age_s(now_ms: int, since: Iterable[int | None]) -> float | None:
    oldest = min((ms for ms in since if ms is not None), default=None)
    return None if oldest is None else max(0, now_ms - oldest) / 1000
