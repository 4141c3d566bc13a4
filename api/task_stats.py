"""GET /api/v1/stats/tasks: how many tasks there are of each kind, and how they fared."""

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
from api.query import QueryReader
from api.read_model import POSITION_HEADER, ReadModel
from api.scalars import Count, CreatedAfter, KbId, TaskTypeName
from api.task_list import alternatives, several
from api.wire import parse_as_of
from ledger.codec import encode
from ledger.events import Priority
from ledger.settings import Settings
from ledger.store import Store
from ledger.task import Status
from projections.list_query import Filters
from projections.task_stats import Stats, task_stats


class TaskStatsQuery(msgspec.Struct, frozen=True):
    """Which tasks are counted."""

    kb_id: Annotated[tuple[KbId, ...], several("Of these knowledge bases.")] | UnsetType = UNSET
    status: Annotated[tuple[Status, ...], several("In these statuses.")] | UnsetType = UNSET
    task_type: Annotated[tuple[TaskTypeName, ...], several("Of these types.")] | UnsetType = UNSET
    priority: Annotated[tuple[Priority, ...], several("Of these priorities.")] | UnsetType = UNSET
    created_after: CreatedAfter | UnsetType = UNSET
    as_of: AsOf | UnsetType = UNSET


class TaskStats(msgspec.Struct, frozen=True):
    """Counts of all tasks that ever were, those that have left the read model too."""

    total_tasks: Count
    queued_tasks: Count
    processing_tasks: Count
    retrying_tasks: Count
    completed_tasks: Count
    failed_tasks: Count
    canceled_tasks: Count
    avg_process_time: Annotated[
        float | None,
        Meta(
            description="Mean seconds from the start of the last attempt to completion, over the "
            "completed tasks; null when there are none."
        ),
    ]
    success_rate: Annotated[
        float,
        Meta(ge=0, le=100, description="Completed of all, in percent; 0 when there are none."),
    ]
    status_breakdown: Annotated[dict[Status, Count], Meta(description="Of every status.")]
    type_breakdown: Annotated[dict[str, Count], Meta(description="Of every type that has tasks.")]
    priority_breakdown: Annotated[dict[Priority, Count], Meta(description="Of every priority.")]


def stats_view(stats: Stats) -> TaskStats:
    """Counts for a caller."""
    by, total = stats.by_status, stats.total
    completed = by[Status.COMPLETED]
    return TaskStats(
        total,
        by[Status.QUEUED],
        by[Status.PROCESSING],
        by[Status.RETRYING],
        completed,
        by[Status.FAILED],
        by[Status.CANCELED],
        round(stats.process_ms / completed / 1000, 3) if completed else None,
        round(completed / total * 100, 1) if total else 0.0,
        by,
        stats.by_type,
        stats.by_priority,
    )


class TaskStatistics:
    """The endpoint; takes an Exchange and answers it, or raises."""

    _reader: Final = QueryReader(TaskStatsQuery)

    def __init__(
        self, store: Store, read_model: ReadModel, past: PastModels, settings: Settings
    ) -> None:
        self._store = store
        self._read_model = read_model
        self._past = past
        self._task_types = settings.known_task_types

    @operation(
        "taskStats",
        Group.STATISTICS,
        {200: Answer("Counts of tasks.", TaskStats, (LEDGER_POSITION_SEEN, PROJECTION_LAG))},
        query=TaskStatsQuery,
        headers=(LEDGER_POSITION_WANTED,),
    )
    async def tasks(self, exchange: Exchange) -> None:
        """Count tasks.

        The numbers are those of the tasks that satisfy all filters. Of hours from which finished
        tasks have left the read model, `created_after` counts them all.

        With `as_of` they are those of that time, folded from the events up to it, and an age in
        `created_after` counts back from there. That takes a second for each hundred thousand events
        or so: what takes longer than an answer may is `SERVICE_UNAVAILABLE`, and there when the
        same is asked again.
        """
        asked = self._reader.read(exchange)
        now_ms = self._store.now_ms()
        if asked.as_of is UNSET:
            filters = self._filters(asked, now_ms)
            stats, headers = await self._read_model.ask(
                exchange, lambda models, wanted: models.stats(filters, wanted)
            )
        else:
            self._read_model.insisted(exchange.list_header(POSITION_HEADER))
            at_ms = moment_of(asked.as_of, now_ms, self._reader)
            filters = self._filters(asked, at_ms)
            stats, headers = await self._past.ask(at_ms, lambda db: task_stats(db, filters))
        await exchange.respond(200, encode(stats_view(stats)), headers)

    def _filters(self, asked: TaskStatsQuery, now_ms: int) -> Filters:
        after = None
        if asked.created_after is not UNSET:
            try:
                after = parse_as_of(asked.created_after, now_ms)
            except ValueError:
                raise self._reader.wrong("created_after") from None
        types = alternatives(asked.task_type)
        check_types(types or (), self._task_types)
        return Filters(
            kb_ids=alternatives(asked.kb_id),
            statuses=alternatives(asked.status),
            task_types=types,
            priorities=alternatives(asked.priority),
            created_after=after,
        )
