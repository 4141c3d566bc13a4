"""Every knob of ledgerq: its type, default, bounds, unit and meaning.

To add a knob, add one field to `Settings`; its environment variable, its key in the settings
file, its flag, what an error says of it, what `ledgerq settings` prints and the page of the docs
all follow from there (`ledger.knobs`). Units come last in a name. Where values come from:
`ledger.settings_sources`.
"""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from ledger.retry_policy import (
    DEFAULT_CALLBACK_POLICY,
    DEFAULT_CALLBACKS_LAST_MS,
    DEFAULT_RETRY_POLICY,
    RetryPolicy,
)

BUILT_IN_TASK_TYPES = (
    "document_processing",
    "batch_processing",
    "knowledge_indexing",
    "embedding_generation",
    "vector_storage",
    "health_check",
)

GRPC_PORT = 9084

ARCHIVE_SEAL_EVENTS_MAX = 65_536
"""Events of one checkpoint."""

_MIB = 1024 * 1024
_HOUR_MS = 3_600_000
_DAY_S = 86_400
_YEAR_S = 366 * _DAY_S


class Durability(StrEnum):
    """When an append is answered: after its fsync, or after a write synced once a second."""

    ALWAYS = "always"
    EVERYSEC = "everysec"


class LogLevel(StrEnum):
    """The least severe record that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """How log records look. `auto`: text on a terminal, JSON anywhere else."""

    AUTO = "auto"
    JSON = "json"
    TEXT = "text"


RedisUrl = Annotated[
    str,
    Meta(
        pattern=r"^(rediss?|unix)://.",
        title="a URL such as redis://host:6379/0, rediss://host:6379/0 or unix:///path/to/socket",
    ),
]
HttpUrl = Annotated[str, Meta(pattern=r"^https?://.", title="a URL such as http://127.0.0.1:8084")]
ObjectStoreUrl = Annotated[
    str,
    Meta(
        pattern=r"^(s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^?#]*)?|file:///[^?#]+)$",
        title="a URL such as s3://bucket/prefix or file:///srv/objects",
    ),
]
ModuleName = Annotated[
    str,
    Meta(
        pattern=r"^[^\W\d]\w*(\.[^\W\d]\w*)*$",
        title="a module's dotted name, such as shop.handlers",
    ),
]
# A type becomes part of a Redis key, whose parts are separated by colons.
TaskType = Annotated[
    str,
    Meta(
        pattern=r"^[a-z][a-z0-9_]{0,62}$",
        title="task types: lower-case letters, digits and _, a letter first, at most 63 characters",
    ),
]


CallbackHost = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9._:*/\[\]-]+$",
        title="hosts, each perhaps with a port: hooks.example.org, *.example.org, 10.0.0.0/8",
    ),
]
CallbackUrl = Annotated[
    str,
    Meta(
        pattern=r"^[a-z][a-z0-9_]{0,62}=https?://[!-+\--~]+$",
        title="task types with their URLs, such as embedding_generation=http://host/{task_id}",
    ),
]
CallbackSecret = Annotated[
    str,
    Meta(
        pattern=r"^whsec_[A-Za-z0-9+/]{32,88}={0,2}$",
        title="keys that begin with whsec_ and go on with 24 to 64 bytes in base64",
        extra={"secret": "yes"},
    ),
]
WitnessText = Annotated[
    str,
    Meta(
        pattern=r"^[^\s+=,]{1,255}\+[0-9a-f]{8}\+[A-Za-z0-9+/]{44}=https?://[!-+\--~]+$",
        title="public keys of witnesses with their URLs, such as name+1234abcd+KEY=https://host",
    ),
]
WebOrigin = Annotated[
    str,
    Meta(
        pattern=r"^(\*|https?://[^/,\s]+)$",
        title="origins of web pages, such as https://app.example.org, or *",
    ),
]
PositionText = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]{1,3}:[0-9]{1,20}-[0-9]{1,20}$",
        title="positions of events, such as 0:1763811000123-0",
    ),
]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The values of all knobs. The constructor trusts its caller; `settings_sources.load` checks
    the bounds."""

    redis_url: Annotated[
        RedisUrl | None,
        Meta(
            description="an outside Redis or Valkey; without it, the embedded one of data_dir",
            extra={"flag": "--redis"},
        ),
    ] = None
    data_dir: Annotated[
        str,
        Meta(
            min_length=1,
            description="folder of what is kept here: the embedded Valkey's data, keys, objects,"
            " read models",
        ),
    ] = ".ledgerq"
    durability: Annotated[
        Durability,
        Meta(description="when an append is answered: after its fsync, or synced once a second"),
    ] = Durability.ALWAYS
    partitions: Annotated[
        int,
        Meta(ge=1, le=64, description="streams that tasks are spread over; fixed once data exists"),
    ] = 1

    host: Annotated[str, Meta(min_length=1, description="address that the API listens on")] = (
        "127.0.0.1"
    )
    port: Annotated[
        int, Meta(ge=0, le=65_535, description="TCP port of the API; 0 takes a free one")
    ] = 8084
    grpc_port: Annotated[
        Annotated[int, Meta(ge=0, le=65_535)] | None,
        Meta(
            description=f"TCP port of gRPC, {GRPC_PORT} unless set; 0 takes a free one, and so does"
            " a port of 0"
        ),
    ] = None
    grpc_message_bytes_max: Annotated[
        int,
        Meta(ge=64 * 1_024, le=1_024 * _MIB, description="largest message that gRPC takes"),
    ] = 16 * _MIB
    url: Annotated[
        HttpUrl,
        Meta(description="where client commands find the API; else here, on the port that is set"),
    ] = "http://127.0.0.1:8084"
    wait_seconds_max: Annotated[
        int, Meta(ge=1, le=600, description="longest ?wait= that a request may ask for")
    ] = 60

    websocket_origins: Annotated[
        tuple[WebOrigin, ...],
        Meta(description="other origins whose web pages may open /ws/tasks; *: any"),
    ] = ()

    task_types: Annotated[
        tuple[TaskType, ...], Meta(description="task types beside the built-in ones")
    ] = ()
    callback_hosts: Annotated[
        tuple[CallbackHost, ...],
        Meta(
            description="hosts that callbacks may go to: names, *.suffix, addresses and networks,"
            " each perhaps with a port. A name may lead to public addresses and to listed ones"
        ),
    ] = ("localhost", "127.0.0.0/8", "::1")
    callback_urls: Annotated[
        tuple[CallbackUrl, ...],
        Meta(description="callback_url of tasks that bring none, by type: type=URL"),
    ] = ()
    callback_secrets: Annotated[
        tuple[CallbackSecret, ...],
        Meta(
            description="keys that callbacks are signed with, each with every one; without any,"
            " one is made in data_dir"
        ),
    ] = ()
    callback_timeout_ms: Annotated[
        int,
        Meta(ge=100, le=120_000, description="longest that the post of a callback may take"),
    ] = 15_000
    callback_concurrency: Annotated[
        int, Meta(ge=1, le=2_048, description="callbacks that a notifier posts at once")
    ] = 128
    callback_host_concurrency: Annotated[
        int, Meta(ge=1, le=256, description="callbacks that it posts to one host at once")
    ] = 8
    callback_retry_base_ms: Annotated[
        int,
        Meta(
            ge=10,
            le=_HOUR_MS,
            description="pause before a callback is posted again; doubles each time",
        ),
    ] = DEFAULT_CALLBACK_POLICY.base_ms
    callback_retry_cap_ms: Annotated[
        int, Meta(ge=10, le=24 * _HOUR_MS, description="longest such pause")
    ] = DEFAULT_CALLBACK_POLICY.cap_ms
    callback_retry_s: Annotated[
        int,
        Meta(
            ge=0,
            le=30 * _DAY_S,
            description="how long after it failed first a callback is posted for the last time",
        ),
    ] = DEFAULT_CALLBACKS_LAST_MS // 1_000
    payload_bytes_max: Annotated[
        int, Meta(ge=1_024, le=64 * _MIB, description="largest payload of a task")
    ] = _MIB
    result_bytes_max: Annotated[
        int, Meta(ge=1_024, le=64 * _MIB, description="largest result of a task")
    ] = _MIB
    batch_items_max: Annotated[
        int, Meta(ge=1, le=10_000, description="most submissions in one batch request")
    ] = 1_000
    batch_body_bytes_max: Annotated[
        int, Meta(ge=1_024, le=1_024 * _MIB, description="largest body of a batch request")
    ] = 64 * _MIB
    queue_tasks_max: Annotated[
        int,
        Meta(
            ge=1,
            le=100_000_000,
            description="most waiting tasks of one type and priority, then QUEUE_FULL",
        ),
    ] = 1_000_000
    memory_high_percent: Annotated[
        int,
        Meta(ge=1, le=100, description="share of Redis' maxmemory above which no task is taken"),
    ] = 90
    memory_reserve_bytes: Annotated[
        int,
        Meta(
            ge=0,
            le=64 * _MIB,
            description="memory kept free for each unfinished task, to finish it; more for results"
            " of more than 200 bytes, each of which is kept twice",
        ),
    ] = 1_024

    object_store_url: Annotated[
        ObjectStoreUrl | None,
        Meta(
            description="where uploaded files lie; without it, in objects in data_dir. The endpoint"
            " and credentials of S3 come from AWS_* variables",
            extra={"flag": "--object-store"},
        ),
    ] = None
    uploads_max: Annotated[
        int, Meta(ge=1, le=10_000, description="most uploads at once in one API process")
    ] = 100
    upload_file_bytes_max: Annotated[
        int, Meta(ge=1, le=5 * 1_024 * _MIB, description="largest file of an upload")
    ] = 100 * _MIB
    upload_files_max: Annotated[
        int, Meta(ge=1, le=1_000, description="most files in one upload")
    ] = 100
    upload_body_bytes_max: Annotated[
        int, Meta(ge=1_024, le=1_024 * 1_024 * _MIB, description="largest body of an upload")
    ] = 1_024 * _MIB
    upload_timeout_s: Annotated[
        int,
        Meta(
            ge=1,
            le=_DAY_S,
            description="longest that an upload may take; what one left behind is removed when"
            " twice this time and an hour have passed",
        ),
    ] = 3_600

    archive_key_file: Annotated[
        str | None,
        Meta(
            description="file with what signs the archive, made at the first use; without it,"
            " archive.key in data_dir"
        ),
    ] = None
    archive_seal_events: Annotated[
        int,
        Meta(
            ge=256,
            le=ARCHIVE_SEAL_EVENTS_MAX,
            description="a checkpoint of the archive is made when there are so many events",
        ),
    ] = 16_384
    archive_seal_interval_ms: Annotated[
        int,
        Meta(
            ge=10,
            le=_HOUR_MS,
            description="or when the first of them has waited for so long",
        ),
    ] = 5_000
    archive_lease_ms: Annotated[
        int,
        Meta(
            ge=1_000,
            le=600_000,
            description="a partition whose archiver was silent for so long is sealed by another",
        ),
    ] = 15_000
    witnesses: Annotated[
        tuple[WitnessText, ...],
        Meta(description="who is asked to cosign each checkpoint of the archive: key=URL"),
    ] = ()
    witness_timeout_ms: Annotated[
        int,
        Meta(ge=50, le=60_000, description="how long a checkpoint waits for witnesses at most"),
    ] = 2_000

    append_batch_items_max: Annotated[
        int, Meta(ge=1, le=1_000, description="most appends sent in one script call")
    ] = 128
    append_batch_bytes_max: Annotated[
        int, Meta(ge=1_024, le=64 * _MIB, description="most bytes sent in one script call")
    ] = _MIB
    append_queue_items_max: Annotated[
        int, Meta(ge=1, le=1_000_000, description="most appends of one process waiting to be sent")
    ] = 10_000
    redis_timeout_ms: Annotated[
        int,
        Meta(
            ge=100,
            le=600_000,
            description="longest that a call to Redis may take, with its retries",
        ),
    ] = 5_000

    read_model_dir: Annotated[
        str | None,
        Meta(description="folder of the read models; without it, read-model in data_dir"),
    ] = None
    read_model_retention_s: Annotated[
        int,
        Meta(
            ge=0,
            le=10 * _YEAR_S,
            description="age at which finished tasks leave the read model; 0 keeps them all",
        ),
    ] = 30 * _DAY_S
    skip_events: Annotated[
        tuple[PositionText, ...],
        Meta(description="positions of events that the read models leave out"),
    ] = ()
    read_wait_ms: Annotated[
        int,
        Meta(
            ge=0,
            le=60_000,
            description="how long a list waits for the read model to see what was written before",
        ),
    ] = 2_000

    subscription_hold_s: Annotated[
        int,
        Meta(
            ge=300,
            le=10 * _YEAR_S,
            description="how long a subscription holds back trimming of what it has not passed;"
            " older events may go, and an alarm is raised",
        ),
    ] = 7 * _DAY_S

    event_retention_s: Annotated[
        int,
        Meta(
            ge=0,
            le=10 * _YEAR_S,
            description="age at which sealed events leave the streams, where nobody waits for them;"
            " at least 60 s, 0 keeps them all",
        ),
    ] = _DAY_S
    task_retention_s: Annotated[
        int,
        Meta(
            ge=0,
            le=10 * _YEAR_S,
            description="how long after their last event finished tasks leave Redis; 0 keeps them",
        ),
    ] = _DAY_S

    handlers: Annotated[
        ModuleName | None, Meta(description="module whose @handler functions the workers run")
    ] = None
    workers: Annotated[
        int,
        Meta(
            ge=1,
            le=256,
            description="worker processes of a pool",
            extra={"also": "--processes"},
        ),
    ] = 1
    concurrency: Annotated[
        int,
        Meta(
            ge=1,
            le=10_000,
            description="tasks at once in all processes of a pool together, divided evenly among"
            " them: 50 over 4 are 13, 13, 12 and 12; each process has at least 1",
        ),
    ] = 50
    lease_ms: Annotated[
        int,
        Meta(ge=2_000, le=600_000, description="how long a task stays a silent worker's own"),
    ] = 15_000
    heartbeat_ms: Annotated[
        int,
        Meta(
            ge=100,
            le=60_000,
            description="time between a worker's heartbeats; never more than a quarter of lease_ms",
        ),
    ] = 1_000
    drain_timeout_ms: Annotated[
        int,
        Meta(ge=0, le=_HOUR_MS, description="how long a stopping process lets its tasks finish"),
    ] = 30_000
    silence_timeout_ms: Annotated[
        int,
        Meta(
            ge=1_000,
            le=_HOUR_MS,
            description="how long a worker process's event loop may stand still until its"
            " supervisor kills it and starts another",
        ),
    ] = 30_000
    loop_blocked_ms: Annotated[
        int,
        Meta(
            ge=0,
            le=60_000,
            description="how long a handler may hold up the event loop until the log names it; 0:"
            " nobody looks",
        ),
    ] = 1_000
    max_memory_mib: Annotated[
        int,
        Meta(
            ge=0,
            le=1_048_576,
            description="resident memory (MiB) above which a worker process is replaced; 0: never",
            extra={"flag": "--max-memory"},
        ),
    ] = 0
    max_tasks: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000_000,
            description="tasks after which a worker process is replaced; 0: never",
        ),
    ] = 0

    retry_base_ms: Annotated[
        int, Meta(ge=0, le=_HOUR_MS, description="delay before the first retry; doubles each time")
    ] = DEFAULT_RETRY_POLICY.base_ms
    retry_cap_ms: Annotated[
        int, Meta(ge=0, le=24 * _HOUR_MS, description="longest delay before a retry")
    ] = DEFAULT_RETRY_POLICY.cap_ms
    retry_jitter: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="share of a delay left to chance: d becomes (1 - retry_jitter) d to d",
        ),
    ] = DEFAULT_RETRY_POLICY.spread
    sweep_interval_ms: Annotated[
        int,
        Meta(ge=10, le=60_000, description="time between looks for due tasks and expired leases"),
    ] = 250
    pending_idle_ms: Annotated[
        int,
        Meta(
            ge=100,
            le=600_000,
            description="age at which a claim that was never started is given to another worker",
        ),
    ] = 5_000

    log_level: Annotated[LogLevel, Meta(description="least severe log record that is written")] = (
        LogLevel.INFO
    )
    log_format: Annotated[
        LogFormat, Meta(description="look of log records; auto: text on a terminal, else json")
    ] = LogFormat.AUTO

    @property
    def known_task_types(self) -> tuple[str, ...]:
        """All task types that a submission may name, the built-in ones first."""
        return tuple(dict.fromkeys(BUILT_IN_TASK_TYPES + self.task_types))

    @property
    def grpc_port_wanted(self) -> int:
        """Where the gRPC service listens."""
        if self.grpc_port is not None:
            return self.grpc_port
        return GRPC_PORT if self.port else 0

    @property
    def callback_url_of(self) -> Mapping[str, str]:
        """By task type, the callback_url of tasks that bring none."""
        pairs = (item.partition("=") for item in self.callback_urls)
        return {task_type: url for task_type, _, url in pairs}

    @property
    def callback_policy(self) -> RetryPolicy:
        """How long to wait before a callback is posted again."""
        return RetryPolicy(base_ms=self.callback_retry_base_ms, cap_ms=self.callback_retry_cap_ms)

    def concurrency_of(self, number: int) -> int:
        """How many tasks at once are worker process `number`'s share; the first is 1."""
        share, rest = divmod(self.concurrency, self.workers)
        return max(1, share + (number <= rest))

    @property
    def beat_ms(self) -> int:
        """Time between heartbeats: of a short lease too, three may come late."""
        return min(self.heartbeat_ms, self.lease_ms // 4)

    @property
    def metrics_folder(self) -> Path:
        """Where the processes of this node keep what they measured."""
        return Path(self.data_dir) / "metrics"

    @property
    def archive_keys(self) -> Path:
        """Where the keys of the archive lie."""
        return Path(self.archive_key_file or Path(self.data_dir) / "archive.key")

    @property
    def read_model_folder(self) -> Path:
        """Where the read models lie."""
        return Path(self.read_model_dir or Path(self.data_dir) / "read-model")

    @property
    def retry_policy(self) -> RetryPolicy:
        """The retry policy of handlers that bring none of their own."""
        return RetryPolicy(
            base_ms=self.retry_base_ms, cap_ms=self.retry_cap_ms, spread=self.retry_jitter
        )
