"""Every path of the API and what it answers: one table."""

from typing import cast

from starlette.routing import Route

from api.bulk_retry import BulkRetries
from api.commands import Commands
from api.dead_letters import DeadLetters
from api.docs_page import STYLESHEET
from api.event_stream import EventStreams
from api.explain import Explain
from api.health import HealthChecks, live
from api.limits import Limits
from api.metrics import Metrics
from api.pages import TASK_MONITOR, Pages
from api.pauses import QueuePauses
from api.proofs import Proofs
from api.queries import Queries
from api.queue_info import QueueInfos
from api.resource import Resource
from api.subscriptions import SubscriptionLists
from api.system import SystemStatistics
from api.task_feed import TaskFeed
from api.task_list import TaskLists
from api.task_stats import TaskStatistics
from api.upload import Uploads
from ledger.settings import Settings


def routes(
    commands: Commands,
    uploads: Uploads,
    queries: Queries,
    proofs: Proofs,
    lists: TaskLists,
    dead_letters: DeadLetters,
    bulk_retries: BulkRetries,
    statistics: TaskStatistics,
    system: SystemStatistics,
    queues: QueueInfos,
    pauses: QueuePauses,
    limits: Limits,
    explain: Explain,
    streams: EventStreams,
    subscriptions: SubscriptionLists,
    feed: TaskFeed,
    health: HealthChecks,
    metrics: Metrics,
    settings: Settings,
) -> list[Route]:
    """The table, from path and method to endpoint; the busiest first.

    Each endpoint is described where it is written (`api.describe`), and so is in the API's
    document, which is made from this table.
    """
    task = "/api/v1/tasks/{task_id}"
    pages = Pages(settings)
    pages.table = [
        Route("/api/v1/tasks", Resource({"POST": commands.submit, "GET": lists.tasks})),
        Route("/api/v1/tasks/batch", Resource({"POST": commands.submit_batch})),
        Route("/api/v1/upload", Resource({"POST": uploads.upload})),
        Route(task, Resource({"GET": queries.task, "DELETE": commands.cancel})),
        Route(f"{task}/events", Resource({"GET": queries.events})),
        Route(f"{task}/proof", Resource({"GET": proofs.proof})),
        Route(f"{task}/explain", Resource({"GET": explain.task})),
        Route(f"{task}/progress", Resource({"PUT": commands.progress})),
        Route(f"{task}/retry", Resource({"POST": commands.retry})),
        Route("/api/v1/dead-letters", Resource({"GET": dead_letters.groups})),
        Route("/api/v1/dead-letters/retry", Resource({"POST": bulk_retries.retry})),
        Route("/api/v1/stats/tasks", Resource({"GET": statistics.tasks})),
        Route("/api/v1/stats/system", Resource({"GET": system.system})),
        Route("/api/v1/queues/info", Resource({"GET": queues.info})),
        Route("/api/v1/queues/{task_type}/pause", Resource({"POST": pauses.pause})),
        Route("/api/v1/queues/{task_type}/resume", Resource({"POST": pauses.resume})),
        Route("/api/v1/limits", Resource({"GET": limits.limits})),
        Route(
            "/api/v1/limits/types/{task_type}",
            Resource({"PUT": limits.set_type, "DELETE": limits.remove_type}),
        ),
        # A kb_id may hold slashes.
        Route(
            "/api/v1/limits/kbs/{kb_id:path}",
            Resource({"PUT": limits.set_kb, "DELETE": limits.remove_kb}),
        ),
        Route("/api/v1/system/events", Resource({"GET": queries.system_events})),
        Route("/api/v1/events", Resource({"GET": streams.events})),
        Route("/api/v1/subscriptions", Resource({"GET": subscriptions.subscriptions})),
        Route("/ws/tasks", Resource({"GET": feed.tasks})),
        Route("/health", Resource({"GET": health.health})),
        Route("/livez", Resource({"GET": live})),
        Route("/readyz", Resource({"GET": health.ready})),
        Route("/metrics", Resource({"GET": metrics.metrics})),
        Route("/openapi.json", Resource({"GET": pages.openapi})),
        Route("/asyncapi.json", Resource({"GET": pages.asyncapi})),
        Route("/docs", Resource({"GET": pages.docs})),
        Route(TASK_MONITOR, Resource({"GET": pages.task_monitor}), include_in_schema=False),
        Route(STYLESHEET, Resource({"GET": pages.stylesheet}), include_in_schema=False),
    ]
    for route in pages.table:
        cast("Resource", route.app).route = route.path_format
    return pages.table
