"""From figures to the metrics that Prometheus reads: names, labels, buckets."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Final

import msgspec
from prometheus_client import Metric
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)

from consumers.archive_status import PartitionSealed
from consumers.meters import BATCH_BOUNDS, DURATION_BOUNDS_S, Histogram, Meters
from consumers.retention_status import RetentionStatus
from consumers.subscription_status import Followers
from ledger.store import CallbacksWaiting
from ledger.system.state import SystemState
from ledger.workers import WorkerSeen, WorkerState
from projections.metric_totals import NOTHING, Times, Totals
from projections.read_model import VERSIONS, WENT_BACKWARDS
from projections.stats import BUCKETS_S

ACTIVE: Final = frozenset((WorkerState.IDLE, WorkerState.BUSY, WorkerState.DRAINING))


class Scrape(msgspec.Struct, frozen=True):
    """What is known at one moment. None: what it comes from cannot be asked now."""

    meters: Meters
    totals: Totals | None
    lag_events: Mapping[int, int] | None
    """By partition, between the read model and the end of the ledger."""
    workers: Sequence[WorkerSeen] | None
    task_types: Sequence[str] = ()
    """Those that the settings name."""
    system: SystemState | None = None
    followers: Followers | None = None
    callbacks: CallbacksWaiting | None = None
    archive: Sequence[PartitionSealed] | None = None
    retention: RetentionStatus | None = None


def families(scrape: Scrape) -> Iterator[Metric]:
    """Every metric that can be told now."""
    yield _gauge("ledger_up", "Whether the ledger answers.", scrape.workers is not None)
    yield _gauge("read_model_up", "Whether the read model answers.", scrape.totals is not None)
    yield from _of_processes(scrape.meters)
    if scrape.totals is not None:
        yield from _of_tasks(scrape.totals, scrape.task_types)
        yield from _of_projections(scrape.totals, scrape.lag_events)
    if scrape.workers is not None:
        yield from _of_workers(scrape.workers)
    if scrape.system is not None:
        yield from _of_controls(scrape.system, scrape.task_types)
    if scrape.followers is not None:
        yield from _of_subscriptions(scrape.followers)
    if scrape.callbacks is not None:
        yield from _of_waiting_callbacks(scrape.callbacks)
    if scrape.archive is not None:
        yield from _of_archive(scrape.archive)
    if scrape.retention is not None:
        yield from _of_retention(scrape.retention)


# -- what the ledger knows ------------------------------------------------------------------------


def _of_tasks(totals: Totals, task_types: Sequence[str]) -> Iterator[Metric]:
    size = GaugeMetricFamily(
        "task_queue_size", "Tasks that could be taken now.", labels=["priority"]
    )
    for priority, n in totals.waiting.items():
        size.add_metric([priority.value], n)
    yield size
    # From zero on: Prometheus sees no increase in a counter that begins with 1.
    outcomes = {**dict.fromkeys(task_types, NOTHING), **totals.outcomes}
    for outcome, told in (
        ("success", "Tasks that were completed."),
        ("failure", "Tasks that failed for good."),
        ("retry", "Attempts that failed and are made again."),
    ):
        counter = CounterMetricFamily(f"task_{outcome}", told, labels=["type"])
        for task_type, counts in outcomes.items():
            counter.add_metric([task_type], counts[outcome])
        yield counter
    yield _times(
        "task_processing_duration_seconds",
        "How long an attempt took, from its start to its end, however it ended.",
        totals.processing,
    )
    yield _times(
        "task_queue_wait_seconds",
        "How long a task waited, from being ready to being started.",
        totals.waits,
    )


def _of_projections(totals: Totals, lag_events: Mapping[int, int] | None) -> Iterator[Metric]:
    stopped = GaugeMetricFamily(
        "projection_stopped",
        "Whether a projection gave up; /health says why, and how to go on.",
        labels=["projection"],
    )
    for name in VERSIONS:
        stopped.add_metric([name], name in totals.stopped)
    yield stopped
    yield _gauge(
        "ledger_went_backwards",
        "Whether the ledger lost events that the read model has.",
        any(stop.reason.startswith(WENT_BACKWARDS) for stop in totals.stopped.values()),
    )
    if lag_events is None:
        return
    lag = GaugeMetricFamily(
        "projection_lag_events",
        "Events that a projection has still to take; +Inf for one that stopped alone.",
        labels=["projection"],
    )
    behind = sum(lag_events.values())
    alone = totals.stopped.keys() - {"tasks"} if "tasks" not in totals.stopped else frozenset[str]()
    for name in VERSIONS:
        lag.add_metric([name], float("inf") if name in alone else behind)
    yield lag


def _of_workers(workers: Iterable[WorkerSeen]) -> Iterator[Metric]:
    states = [worker.state for worker in workers]
    active = sum(state in ACTIVE for state in states)
    yield _gauge("worker_pool_active_count", "Workers that are there.", active)
    idle = states.count(WorkerState.IDLE)
    yield _gauge("worker_pool_idle_count", "Of those, the ones that run nothing.", idle)


def _of_controls(system: SystemState, task_types: Iterable[str]) -> Iterator[Metric]:
    paused = GaugeMetricFamily(
        "queue_paused", "Whether tasks of a type are held back.", labels=["type"]
    )
    for task_type in dict.fromkeys((*task_types, *sorted(system.paused))):
        paused.add_metric([task_type], task_type in system.paused)
    yield paused
    limit = GaugeMetricFamily(
        "type_limit",
        "How many tasks of a type may run at once, where that is set.",
        labels=["type"],
    )
    for task_type, most in system.type_limits.items():
        limit.add_metric([task_type], most)
    yield limit


def _of_subscriptions(followers: Followers) -> Iterator[Metric]:
    lag = GaugeMetricFamily(
        "subscription_lag_events",
        "Events that a subscription has still to pass; left out where the server does not know.",
        labels=["group"],
    )
    members = GaugeMetricFamily(
        "subscription_members", "Who reads for a subscription, now.", labels=["group"]
    )
    halted = GaugeMetricFamily(
        "subscription_halted",
        "Whether a subscription does not go on; `ledgerq subscriptions` says why.",
        labels=["group"],
    )
    overdue = GaugeMetricFamily(
        "subscription_overdue",
        "Whether a subscription is so far behind that trimming does not wait for it.",
        labels=["group"],
    )
    for status in followers.groups:
        if status.lag_events is not None:
            lag.add_metric([status.name], status.lag_events)
        if status.group is not None:
            members.add_metric([status.name], len(status.members))
            halted.add_metric([status.name], bool(status.halted))
        overdue.add_metric([status.name], status.overdue)
    yield from (lag, members, halted, overdue)


def _of_archive(archive: Sequence[PartitionSealed]) -> Iterator[Metric]:
    def gauge(name: str, told: str, values: Sequence[float]) -> Metric:
        found = GaugeMetricFamily(name, told, labels=["partition"])
        for each, value in zip(archive, values, strict=True):
            found.add_metric([str(each.partition)], value)
        return found

    yield gauge(
        "archive_sealed_events", "Events that are sealed.", [each.sealed.size for each in archive]
    )
    yield gauge(
        "archive_lag_events",
        "Events that are not sealed yet.",
        [each.lag_events for each in archive],
    )
    yield gauge(
        "archive_unsealed_seconds",
        "For how long the first event that is not sealed has waited. It grows where no archiver"
        " runs, or the object store takes nothing.",
        [each.unsealed_s for each in archive],
    )
    yield gauge(
        "archive_halted",
        "Whether nothing more is sealed, or trimmed, until somebody decides.",
        [bool(each.halted) for each in archive],
    )


def _of_retention(status: RetentionStatus) -> Iterator[Metric]:
    entries = GaugeMetricFamily(
        "ledger_stream_entries", "Entries of the streams.", labels=["partition"]
    )
    held = GaugeMetricFamily(
        "retention_held_seconds",
        "Age of the oldest event that may not be trimmed. It grows beyond event_retention_s where"
        " the archive, a read model or a subscription does not go on.",
        labels=["partition"],
    )
    for one in status.partitions:
        partition = [str(one.partition)]
        entries.add_metric(partition, one.ends.length)
        held.add_metric(partition, one.held_ms(status.now_ms) / 1_000)
    yield from (entries, held)


# -- what processes measured ----------------------------------------------------------------------


def _of_processes(meters: Meters) -> Iterator[Metric]:
    yield from _of_answers(meters)
    yield from _of_appends(meters)
    yield from _of_feeds(meters)
    yield from _of_uploads(meters)
    yield from _of_callbacks(meters)
    yield from _of_sealing(meters)
    yield from _of_retention_done(meters)
    yield from _of_blocked_loops(meters)
    yield _gauge(
        "worker_threads_abandoned",
        "Threads of handlers that run on although their tasks were given up, now.",
        meters.threads_abandoned,
    )
    yield _counter(
        "ledger_foreign_entries",
        "Entries of the ledger's streams that ledgerq did not write.",
        meters.foreign_entries,
    )


def _of_answers(meters: Meters) -> Iterator[Metric]:
    requests = HistogramMetricFamily(
        "http_request_duration_seconds",
        "Answered requests, until the end of the answer; of one in parts, until its head.",
        labels=["route", "method", "status"],
    )
    for key, histogram in meters.requests.items():
        _add(requests, key.split(" "), histogram, DURATION_BOUNDS_S)
    yield requests
    calls = HistogramMetricFamily(
        "grpc_request_duration_seconds",
        "Answered gRPC calls, waiting included; of a stream, until its first message.",
        labels=["method", "code"],
    )
    for key, histogram in meters.calls.items():
        _add(calls, key.split(" "), histogram, DURATION_BOUNDS_S)
    yield calls


def _of_appends(meters: Meters) -> Iterator[Metric]:
    seconds = HistogramMetricFamily(
        "ledger_append_duration_seconds", "Until the ledger answered a batch of appends."
    )
    _add(seconds, [], meters.append_seconds, DURATION_BOUNDS_S)
    yield seconds
    items = HistogramMetricFamily("ledger_append_batch_size", "Appends that went together.")
    _add(items, [], meters.append_items, BATCH_BOUNDS)
    yield items


def _of_feeds(meters: Meters) -> Iterator[Metric]:
    too_slow = "Clients that were too slow."
    yield _gauge("event_stream_clients", "Clients of /api/v1/events, now.", meters.stream_clients)
    yield _counter("event_stream_dropped", too_slow, meters.streams_dropped)
    yield _gauge("websocket_clients", "Clients of /ws/tasks, now.", meters.websocket_clients)
    yield _counter("websocket_dropped", too_slow, meters.websockets_dropped)


def _of_uploads(meters: Meters) -> Iterator[Metric]:
    yield _gauge("uploads_running", "Uploads in work, now.", meters.uploads_running)
    yield _counter("upload_files", "Files that were uploaded.", meters.upload_files)
    yield _counter("upload_bytes", "Their bytes.", meters.upload_bytes)
    yield _counter(
        "upload_orphans_removed",
        "Objects that broken uploads left behind, and that were removed.",
        meters.orphans_removed,
    )


def _of_waiting_callbacks(callbacks: CallbacksWaiting) -> Iterator[Metric]:
    yield _gauge("callbacks_waiting", "Callbacks that nobody took yet.", callbacks.waiting)
    yield _gauge("callbacks_due", "Of those, the ones that are due.", callbacks.due)
    yield _gauge(
        "callbacks_oldest_due_seconds",
        "For how long the oldest of these has been due.",
        callbacks.oldest_ms / 1000,
    )


def _of_callbacks(meters: Meters) -> Iterator[Metric]:
    yield _counter(
        "callbacks_delivered", "Posts that a callback_url took.", meters.callbacks_delivered
    )
    yield _counter("callbacks_failed", "Posts that came to nothing.", meters.callbacks_failed)
    seconds = HistogramMetricFamily("callback_duration_seconds", "How long a post took.")
    _add(seconds, [], meters.callback_seconds, DURATION_BOUNDS_S)
    yield seconds


def _of_sealing(meters: Meters) -> Iterator[Metric]:
    yield _counter(
        "archive_events_sealed", "Events that went into the archive.", meters.events_sealed
    )
    yield _counter(
        "archive_seals_failed",
        "Times that events could not be sealed, and were tried again.",
        meters.seals_failed,
    )
    yield _counter(
        "archive_checkpoints_cosigned",
        "Cosignatures that witnesses gave.",
        meters.checkpoints_cosigned,
    )
    yield _counter(
        "archive_cosignings_failed",
        "Times that a witness did not cosign, or not in time.",
        meters.cosignings_failed,
    )
    seconds = HistogramMetricFamily(
        "archive_seal_duration_seconds", "How long it took to make a checkpoint."
    )
    _add(seconds, [], meters.seal_seconds, DURATION_BOUNDS_S)
    yield seconds


def _of_retention_done(meters: Meters) -> Iterator[Metric]:
    yield _counter("events_trimmed", "Sealed events that left the streams.", meters.events_trimmed)
    yield _counter(
        "tasks_evicted",
        "Finished tasks whose snapshots left the ledger's memory.",
        meters.tasks_evicted,
    )
    yield _counter(
        "retention_failed",
        "Times that nothing was let go of: the archive could not be read, or has lost it.",
        meters.retentions_failed,
    )


def _of_blocked_loops(meters: Meters) -> Iterator[Metric]:
    """By the type whose handler did it; empty where that is unknown."""
    blocks = CounterMetricFamily(
        "worker_loop_blocks", "Times that a handler held up its worker's loop.", labels=["type"]
    )
    for task_type, count in meters.loop_blocks.items():
        blocks.add_metric([task_type], count)
    yield blocks
    seconds = CounterMetricFamily(
        "worker_loop_blocked_seconds", "For how long, in all.", labels=["type"]
    )
    for task_type, total in meters.loop_blocked_seconds.items():
        seconds.add_metric([task_type], total)
    yield seconds


# -- shapes ---------------------------------------------------------------------------------------


def _gauge(name: str, told: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, told, value=float(value))


def _counter(name: str, told: str, value: float) -> CounterMetricFamily:
    """It is told as `<name>_total`."""
    return CounterMetricFamily(name, told, value=value)


def _times(name: str, told: str, times: Mapping[str, Times]) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, told, labels=["type"])
    for task_type, found in times.items():
        histogram = Histogram(list(found.counts), found.sum_ms / 1000)
        _add(family, [task_type], histogram, BUCKETS_S)
    return family


def _add(
    family: HistogramMetricFamily,
    labels: Sequence[str],
    histogram: Histogram,
    bounds: Sequence[float],
) -> None:
    names = ("+Inf" if bound == float("inf") else str(bound) for bound in bounds)
    buckets = list(zip(names, map(float, accumulate(histogram.counts)), strict=True))
    family.add_metric(labels, buckets, histogram.total)
