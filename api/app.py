"""The composition root: the API as one ASGI application."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from starlette.routing import Router

from api.audience import Audience
from api.bulk_retry import BulkRetries
from api.commands import Commands
from api.database_health import DatabaseHealth
from api.dead_letters import DeadLetters
from api.estimates import Estimates
from api.event_stream import EventStreams
from api.evicted import ReadModelFirst
from api.explain import Explain
from api.gate import Gate, not_found
from api.health import HealthChecks
from api.intake import Intake
from api.lag import Lag
from api.limits import Limits
from api.live import Live
from api.metrics import Metrics
from api.overload import MemoryGuard
from api.past import PastModels
from api.pauses import QueuePauses
from api.proofs import Proofs
from api.queries import Queries
from api.queue_info import QueueInfos
from api.read_model import ReadModel
from api.routes import routes
from api.submissions import Submissions
from api.subscriptions import SubscriptionLists
from api.system import SystemStatistics
from api.task_feed import TaskFeed
from api.task_list import TaskLists
from api.task_stats import TaskStatistics
from api.upload import Uploads
from consumers.meter_files import MeterFile
from consumers.meters import Meter, Meters
from consumers.service import Outage
from ledger.archive.evicted import EvictedTasks
from ledger.archive.joined import Joined
from ledger.archive.reader import Archive
from ledger.objects import open_objects
from ledger.redis_store import RedisStore
from ledger.redis_subscriptions import RedisSubscriptions
from ledger.settings import Settings
from projections.figures import read_figures
from projections.model_files import ModelFiles
from projections.starts import read_starts

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send


class App:
    """An ASGI application on an open store, which stays its caller's to close."""

    def __init__(self, store: RedisStore, settings: Settings) -> None:
        self.store = store
        self._metrics_folder = settings.metrics_folder
        self.meter = Meter()
        self._meter_file: MeterFile | None = None
        store.on_append = self.meter.append
        store.report_outages(_log_outages(Outage("api")))
        self.live = Live(store)
        self._objects = open_objects(settings)
        archive = Archive(self._objects, "", store.partitions)
        self.audience = Audience(store, self.live, Joined(store, archive))
        self.streams = EventStreams(self.audience, self.meter)
        self.feed = TaskFeed(store, self.audience, self.meter, settings.websocket_origins)
        self._memory = MemoryGuard(store, settings)
        self.read_model = ReadModel(store, settings)
        evicted = EvictedTasks(archive, store.epoch)
        complete = not settings.skip_events
        store.past = self._past = ReadModelFirst(
            self.read_model.look, evicted, store.partitions, complete=complete
        )
        self.past = PastModels(store, settings)
        lag, look = Lag(store), self.read_model.models.look
        files = ModelFiles(settings.read_model_folder)
        database = DatabaseHealth(files, lag, look)
        self._health = HealthChecks(store.client, self._memory, database, settings)
        subscriptions = RedisSubscriptions(
            store.client, store.partitions, settings.redis_timeout_ms
        )
        self._estimates = Estimates(
            store,
            lambda: self.read_model.look(read_figures),
            lambda ids: self.read_model.look(lambda db: read_starts(db, ids)),
        )
        self.intake = Intake(settings)
        self.submissions = Submissions(store, settings, self._memory)
        self.queries = Queries(store, settings, self.live, self._estimates)
        self.lists = TaskLists(store, self.read_model, self._estimates, settings)
        self.uploads = Uploads(store, self.intake, self.submissions, settings, self.meter)
        self.table = routes(
            Commands(store, self.intake, self.submissions),
            self.uploads,
            self.queries,
            Proofs(store, self._objects),
            self.lists,
            DeadLetters(store, self.read_model, settings),
            BulkRetries(store, self.read_model, settings, self._memory),
            TaskStatistics(store, self.read_model, self.past, settings),
            SystemStatistics(store, self.read_model),
            QueueInfos(store, self.read_model, self.past, settings),
            QueuePauses(store, settings),
            Limits(store, settings),
            Explain(store, self._estimates),
            self.streams,
            SubscriptionLists(subscriptions, settings),
            self.feed,
            self._health,
            Metrics(store, subscriptions, self._measured, lag, look, files, settings),
            settings,
        )
        router = Router(self.table, redirect_slashes=False, default=not_found)
        fixed = {r.path: r.app for r in self.table if not r.param_convertors}
        self._gate = Gate(router, fixed, self.meter)

    def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> Awaitable[None]:
        return self._gate(scope, receive, send)

    def start(self) -> None:
        """Begin what runs beside the requests until `close`: let the other processes of this node
        tell what this one measures, and the other way round; clear away broken uploads, and
        moments that were left behind."""
        self.uploads.start()
        self.past.start()
        self._meter_file = MeterFile(self.meter, self._metrics_folder)
        self._meter_file.start()

    async def _measured(self) -> Meters:
        self.meter.foreign(self.store.foreign.count)
        return await self._meter_file.gather() if self._meter_file else self.meter.meters

    async def stop_waiting(self) -> None:
        """Answer whoever waits with what there is: a stopping server must not wait for them."""
        self._health.stopping = True
        await self.audience.stop()
        await self.live.close()
        await self._estimates.close()
        await self.read_model.models.stop_waiting()
        await self.past.stop_waiting()

    async def close(self) -> None:
        """End what runs beside the requests."""
        await self.stop_waiting()
        await self._past.drain()
        await self.read_model.models.close()
        await self.past.close()
        await self._memory.close()
        await self.submissions.close()
        await self.uploads.close()
        await self._objects.close()
        if self._meter_file is not None:
            await self._meter_file.close()


def _log_outages(outage: Outage) -> Callable[[str | None], None]:
    """Say once that requests cannot be served, and once that they can again."""

    def told(reason: str | None) -> None:
        if reason is None:
            outage.over("requests")
        else:
            outage.met("requests", reason, asyncio.get_running_loop().time())

    return told


def create_app(store: RedisStore, settings: Settings) -> App:
    """The API over `store`."""
    return App(store, settings)
