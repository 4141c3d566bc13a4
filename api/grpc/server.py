"""The gRPC server of a process: from its port to its end. It listens at once; its methods answer as
soon as the application is there."""

import asyncio
from typing import TYPE_CHECKING, Any, Final, cast

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from api.grpc import task_service_pb2 as pb
from api.grpc.call import Call, Frame
from api.grpc.tasks import TaskMethods
from api.grpc.watching import WatchMethod
from api.grpc.workers import WorkerMethods
from consumers.remote_leases import RemoteOptions
from consumers.remote_workers import RemoteWorkers
from ledger.settings import Settings

if TYPE_CHECKING:
    from api.app import App

log = structlog.get_logger("api")

SERVICE: Final = "ledgerq.v1.TaskService"

CALLS_MAX: Final = 4_096
"""At once in one process, those that wait included; more get RESOURCE_EXHAUSTED."""

METADATA_BYTES_MAX: Final = 64 * 1024

KEEPALIVE_MS: Final = 20_000
"""Between pings to a silent client; one that does not answer is taken for gone."""

PING_TIMEOUT_MS: Final = 10_000
PING_INTERVAL_MIN_MS: Final = 5_000
"""Clients may ping as often as that."""


END_GRACE_S: Final = 0.5
"""For what is on its way to clients as the server ends."""

PROBES: Final = frozenset(("Check",))
"""Who is asked whether the process lives must not be taken for dead because it is busy."""

Handlers = dict[str, "grpc.RpcMethodHandler[Any, Any]"]


class GrpcServer:
    """`start`, `open`, `stop_waiting`, `stop`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._frame = Frame()
        self._health: Any = cast("Any", health).aio.HealthServicer()
        self._workers: RemoteWorkers | None = None
        self._watch: WatchMethod | None = None
        self._methods = _Methods()
        self._telling: asyncio.Task[None] | None = None
        self._stopped = False
        self._server = grpc.aio.server(
            options=_options(settings), maximum_concurrent_rpcs=CALLS_MAX
        )
        by_path = _ByPath(self._server)
        cast("Any", health_pb2_grpc).add_HealthServicer_to_server(self._health, by_path)
        names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflecting = cast("Any", reflection).aio.ReflectionServicer(names)
        cast("Any", reflection_pb2_grpc).add_ServerReflectionServicer_to_server(reflecting, by_path)
        # After them: until the application is there, these answer for every path that is left.
        self._server.add_generic_rpc_handlers((self._methods,))

    async def start(self) -> int:
        """Listen; the port. Raises OSError when that is not possible."""
        host, port = self._settings.host, self._settings.grpc_port_wanted
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            bound = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(
                f"cannot listen on {address} for gRPC: see --host and --grpc-port"
            ) from error
        await self._tell(health_pb2.HealthCheckResponse.NOT_SERVING)
        await self._server.start()
        return bound

    def open(self, app: "App") -> None:
        """Let `app` answer from now on."""
        settings = self._settings
        options = RemoteOptions(
            settings.lease_ms, settings.beat_ms, settings.pending_idle_ms, settings.retry_policy
        )
        self._workers = RemoteWorkers(app.store, options)
        self._workers.start()
        tasks = TaskMethods(
            app.store, app.intake, app.submissions, app.queries, app.lists, settings
        )
        workers = WorkerMethods(self._workers, app.intake, settings)
        self._watch = WatchMethod(app.audience, app.meter)
        self._methods.handlers = _table(self._frame, tasks, workers, self._watch)
        self._frame.open(app.meter)
        tell = self._tell(health_pb2.HealthCheckResponse.SERVING)
        self._telling = asyncio.get_running_loop().create_task(tell)

    @property
    def waiting(self) -> int:
        """How many workers wait for tasks."""
        return 0 if self._workers is None else self._workers.waiting

    async def stop_waiting(self) -> None:
        """Take no new calls, and let those that wait go with what there is."""
        self._frame.close("the server is stopping; try again")
        await self._health.enter_graceful_shutdown()
        if self._workers is not None:
            self._workers.stop()
        if self._watch is not None:
            self._watch.stop()

    async def stop(self) -> None:
        """Answer what is in work, and end. Once is enough."""
        if self._stopped:
            return
        self._stopped = True
        if self._telling is not None:
            await self._telling
        await self.stop_waiting()
        await self._frame.drained(self._settings.drain_timeout_ms / 1000)
        # The health service's watchers would wait for ever.
        await self._server.stop(END_GRACE_S)
        if self._workers is not None:
            await self._workers.close()

    async def _tell(self, status: Any) -> None:
        for name in ("", SERVICE):
            await self._health.set(name, status)


class _ByPath:
    """A server for services that would register each of their methods: all but PROBES are found by
    their paths instead.

    For each registered method grpc keeps a future, and after every call, of whatever method, it
    waits for all of them anew. But one that is found by its path waits in line with all calls.
    """

    def __init__(self, server: grpc.aio.Server) -> None:
        self.add_generic_rpc_handlers = server.add_generic_rpc_handlers
        self._register = cast("Any", server).add_registered_method_handlers

    def add_registered_method_handlers(self, service: str, handlers: Handlers) -> None:
        self._register(service, {name: handlers[name] for name in PROBES & handlers.keys()})


class _Methods(grpc.GenericRpcHandler):
    """The methods by their paths."""

    def __init__(self) -> None:
        self.handlers: Handlers = {}
        # In a frame that is never opened: a call may begin before the other one is, and be read
        # afterwards.
        self._not_yet = Frame().unary("other", pb.GetTaskRequest, _never)

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> "grpc.RpcMethodHandler[Any, Any] | None":
        if not self.handlers:
            return self._not_yet
        return self.handlers.get(handler_call_details.method)


async def _never(_request: pb.GetTaskRequest, _call: Call) -> pb.Task:
    raise AssertionError("a frame that is not open has answered")


def _table(
    frame: Frame, tasks: TaskMethods, workers: WorkerMethods, watch: WatchMethod
) -> Handlers:
    unary = frame.unary
    methods = {
        "SubmitTask": unary("SubmitTask", pb.SubmitTaskRequest, tasks.submit),
        "SubmitBatch": unary("SubmitBatch", pb.SubmitBatchRequest, tasks.submit_batch),
        "GetTask": unary("GetTask", pb.GetTaskRequest, tasks.get),
        "ListTasks": unary("ListTasks", pb.ListTasksRequest, tasks.list),
        "CancelTask": unary("CancelTask", pb.CancelTaskRequest, tasks.cancel),
        "RetryTask": unary("RetryTask", pb.RetryTaskRequest, tasks.retry),
        "GetPendingTasks": unary("GetPendingTasks", pb.GetPendingTasksRequest, workers.take),
        "UpdateStatus": unary("UpdateStatus", pb.UpdateStatusRequest, workers.update),
        "UpdateStatusBatch": unary(
            "UpdateStatusBatch", pb.UpdateStatusBatchRequest, workers.update_batch
        ),
        "Heartbeat": unary("Heartbeat", pb.HeartbeatRequest, workers.beat),
        "WatchTasks": frame.stream("WatchTasks", pb.WatchTasksRequest, watch.watch),
    }
    return {f"/{SERVICE}/{name}": handler for name, handler in methods.items()}


def _options(settings: Settings) -> list[tuple[str, int]]:
    return [
        # Two services on one port would each get some of the calls.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", settings.grpc_message_bytes_max),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", METADATA_BYTES_MAX),
        # Of calls that come at once, grpc would else drop some beyond the first thousand, as
        # CANCELLED, before anybody has counted them.
        ("grpc.server.max_pending_requests", CALLS_MAX),
        ("grpc.server.max_pending_requests_hard_limit", 2 * CALLS_MAX),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", PING_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", PING_INTERVAL_MIN_MS),
    ]
