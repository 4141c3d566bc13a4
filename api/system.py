"""GET /api/v1/stats/system: the workers, how much waits, and how fast it is worked off."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from api.describe import (
    LEDGER_POSITION_SEEN,
    LEDGER_POSITION_WANTED,
    PROJECTION_LAG,
    Answer,
    Group,
    operation,
)
from api.exchange import Exchange
from api.lag import behind_ms
from api.read_model import ReadModel
from api.scalars import Count, Moment, TaskId
from api.task_stats import TaskStats, stats_view
from api.wire import moment_text
from ledger.codec import encode
from ledger.store import Position, Store
from ledger.workers import WorkerSeen, WorkerState
from projections.system import SystemFacts

RATE_WINDOW_MS: Final = 60_000


class WorkerView(msgspec.Struct, frozen=True):
    """A worker as it last showed itself."""

    id: str
    status: WorkerState
    current_task_id: Annotated[
        TaskId | None, Meta(description="The one that it has run longest; null when it runs none.")
    ]
    current_task_ids: Annotated[
        list[TaskId], Meta(description="What it runs; at most a hundred are named.")
    ]
    tasks_processed: Annotated[Count, Meta(description="Attempts that ended, since its start.")]
    tasks_succeeded: Count
    tasks_failed: Annotated[
        Count, Meta(description="Attempts that failed; not those that put their task off.")
    ]
    last_heartbeat: Moment
    started_at: Moment
    average_task_time: Annotated[
        float | None,
        Meta(description="Mean seconds of the attempts that ended; null before the first."),
    ]
    task_types: Annotated[list[str], Meta(description="What it has handlers for.")]
    concurrency: Annotated[int, Meta(ge=1, description="How many tasks it can run at once.")]
    running: Annotated[Count, Meta(description="How many it runs.")]
    host: str
    pid: Count


class Lag(msgspec.Struct, frozen=True):
    """How far a projection is behind the ledger."""

    behind_ms: Annotated[
        Count,
        Meta(
            description="For how long the oldest event that was not seen has been there; 0 when "
            "all were seen. As the header `Projection-Lag`."
        ),
    ]
    stopped_at: Annotated[
        str | None, Meta(description="The event that it could not digest; null while it goes on.")
    ]
    reason: str | None


class SystemStats(msgspec.Struct, frozen=True):
    """The workers that were heard of, the queues, and the pace."""

    total_workers: Annotated[Count, Meta(description="All that are listed, lost ones too.")]
    active_workers: Annotated[Count, Meta(description="Those that are there: not lost.")]
    idle_workers: Annotated[Count, Meta(description="Those that run nothing, and take tasks.")]
    busy_workers: Annotated[Count, Meta(description="Those that run something, and take tasks.")]
    queue_size: Annotated[Count, Meta(description="Tasks that wait to be taken.")]
    processing_rate: Annotated[
        float,
        Meta(
            ge=0,
            description="Tasks that were completed or failed per minute, over the last 60 seconds.",
        ),
    ]
    workers: Annotated[
        list[WorkerView],
        Meta(description="Lost ones come last, and are forgotten after an hour."),
    ]
    task_stats: TaskStats
    projection_lag: Annotated[dict[str, Lag], Meta(description="By projection.")]


def worker_view(worker: WorkerSeen) -> WorkerView:
    """The worker for a caller."""
    report, average_ms = worker.report, worker.average_task_ms
    return WorkerView(
        report.id,
        worker.state,
        report.task_ids[0] if report.task_ids else None,
        list(report.task_ids),
        worker.processed,
        report.succeeded,
        report.failed,
        moment_text(worker.last_heartbeat),
        moment_text(report.started_at),
        None if average_ms is None else round(average_ms / 1000, 3),
        list(report.task_types),
        report.concurrency,
        report.running,
        report.host,
        report.pid,
    )


def system_view(
    facts: SystemFacts, workers: Sequence[WorkerSeen], lags: dict[str, Lag]
) -> SystemStats:
    """The system for a caller."""
    states = [worker.state for worker in workers]
    return SystemStats(
        len(workers),
        len(workers) - states.count(WorkerState.LOST),
        states.count(WorkerState.IDLE),
        states.count(WorkerState.BUSY),
        facts.ready,
        facts.finished * 60_000 / RATE_WINDOW_MS,
        [worker_view(worker) for worker in workers],
        stats_view(facts.stats),
        lags,
    )


async def projection_lags(
    store: Store, facts: SystemFacts, ends: Sequence[Position]
) -> dict[str, Lag]:
    """Of each projection; one that stopped has seen nothing after the event where it did."""
    going_on_ms = await behind_ms(store, facts.seen, ends)
    lags: dict[str, Lag] = {}
    for name, stopped in facts.stopped.items():
        if stopped is None:
            lags[name] = Lag(going_on_ms, None, None)
        else:
            stop = Position.parse(stopped.at)
            seen = {**facts.seen, stop.partition: stop}
            lags[name] = Lag(await behind_ms(store, seen, ends), stopped.at, stopped.reason)
    return lags


class SystemStatistics:
    """The endpoint; takes an Exchange and answers it, or raises."""

    def __init__(self, store: Store, read_model: ReadModel) -> None:
        self._store = store
        self._read_model = read_model

    @operation(
        "systemStats",
        Group.STATISTICS,
        {
            200: Answer(
                "Workers, queues and pace.", SystemStats, (LEDGER_POSITION_SEEN, PROJECTION_LAG)
            )
        },
        headers=(LEDGER_POSITION_WANTED,),
    )
    async def system(self, exchange: Exchange) -> None:
        """Tell who works, how much waits, and how fast it is worked off."""
        exchange.parameters()
        store = self._store
        ends = await asyncio.gather(*map(store.last_position, range(store.partitions)))
        since_ms = store.now_ms() - RATE_WINDOW_MS
        facts, headers = await self._read_model.ask(
            exchange, lambda models, wanted: models.system(since_ms, wanted)
        )
        lags = await projection_lags(store, facts, ends)
        answer = system_view(facts, await store.workers(), lags)
        await exchange.respond(200, encode(answer), headers)
