"""Every knob of ledgerq: its type, default, bounds, unit and meaning, and a value's source.

To add a knob, add one field to `Settings`; its environment variable, its key in the settings
file, its flag, what an error says of it and what `ledgerq settings` prints all follow from there.
Units come last in a name. Values are looked for in flags, then `LEDGERQ_*` variables, then a TOML
file, then the default; the first one found counts.
"""

import difflib
import re
import tomllib
from collections import ChainMap
from collections.abc import Iterator, Mapping, MutableMapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, inspect

from ledger.allow_list import AllowList, parse_entry
from ledger.retry_policy import (
    DEFAULT_CALLBACK_POLICY,
    DEFAULT_CALLBACKS_LAST_MS,
    DEFAULT_RETRY_POLICY,
    RetryPolicy,
)

ENV_PREFIX = "LEDGERQ_"
FILE_NAME = "ledgerq.toml"
FILE_VARIABLE = f"{ENV_PREFIX}SETTINGS_FILE"
SERVICE_LINK_VARIABLE = f"{ENV_PREFIX}SERVICE_HOST"
"""Kubernetes gives it, and others such as LEDGERQ_PORT, to pods beside a Service `ledgerq`."""

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
    """The values of all knobs. The constructor trusts its caller; `load` checks the bounds."""

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


class Knob(msgspec.Struct, frozen=True):
    """What is known of one setting, read off its field in `Settings`."""

    name: str
    env: str
    flag: str
    also: str | None
    """Another name of the flag, which is shown first."""
    type: Any
    default: Any
    expected: str
    description: str
    is_secret: bool = False
    """Its values are shown to nobody."""

    @property
    def flags(self) -> tuple[str, ...]:
        """All names of the flag, as they are shown."""
        return (self.also, self.flag) if self.also else (self.flag,)

    @property
    def default_text(self) -> str:
        """The default as a flag or a variable would say it; empty where there is none."""
        return _to_text(self.default)


class Origin(StrEnum):
    """The kinds of place a value comes from, strongest first."""

    FLAG = "flag"
    ENVIRONMENT = "environment"
    FILE = "file"
    DEFAULT = "default"


class Source(msgspec.Struct, frozen=True):
    """Where a value came from; `name` is the flag, the variable or the file's path."""

    origin: Origin
    name: str = ""

    def __str__(self) -> str:
        return f"{self.origin} {self.name}".rstrip()


class Loaded(msgspec.Struct, frozen=True):
    """Settings, and the source of each of them by name."""

    settings: Settings
    sources: Mapping[str, Source]

    def rows(self) -> Iterator[tuple[Knob, str, Source]]:
        """Knob, value as text and source, in the order of `Settings`; passwords are masked."""
        for name, knob in KNOBS.items():
            yield knob, masked(_to_text(getattr(self.settings, name))), self.sources[name]


class SettingsError(ValueError):
    """Settings that cannot be used; `problems` has one line for each thing that is wrong."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


def load(flags: Mapping[str, Any], env: Mapping[str, str], file: Path | None) -> Loaded:
    """Settings from `flags` (by knob name; None: not given), `env` and `file`, in this order.

    Lists may be given as comma-separated text, and "" stands for "none" where that is a value.
    A `data_dir` among the flags means the server of that directory: without a `redis_url` beside
    it, one that comes from elsewhere does not count. Without a `url`, clients look on this machine,
    on `port`.
    Raises `SettingsError` for unknown names (with the closest valid one), for values of the wrong
    type or out of bounds, for values that do not go together, and for a file that cannot be read.
    """
    values: dict[str, Any] = {}
    sources: dict[str, Source] = {}
    problems: list[str] = []
    for source, name, given in (*_flags(flags), *_environment(env), *_file(file)):
        knob = KNOBS.get(name)
        if knob is None:
            problems.append(_unknown(source, name))
        elif name not in sources:
            sources[name] = source
            try:
                values[name] = _parse(knob, given, strict=source.origin is Origin.FILE)
            except msgspec.ValidationError:
                problems.append(
                    f"{name}: expected {knob.expected}, got {_quoted(knob, given)} ({source})"
                )
    default = Source(Origin.DEFAULT)
    every_source = {name: sources.get(name, default) for name in KNOBS}
    if _outranks(every_source["data_dir"], every_source["redis_url"]):
        values["redis_url"], every_source["redis_url"] = None, default
    if "port" in values:
        values.setdefault("url", f"http://127.0.0.1:{values['port'] or KNOBS['port'].default}")
    settings = Settings(**values)
    # Bounds that span two knobs mean little while one of them is not even a value.
    problems = problems or [
        *_disagreements(settings, every_source),
        *_callback_problems(settings, every_source),
    ]
    if problems and SERVICE_LINK_VARIABLE in env:
        problems.append("Kubernetes sets such variables: give the pod `enableServiceLinks: false`")
    if problems:
        raise SettingsError(problems)
    return Loaded(settings, every_source)


def _outranks(data_dir: Source, redis_url: Source) -> bool:
    """Whether a directory was named by hand, and a server at best in the environment or a file."""
    return data_dir.origin is Origin.FLAG and redis_url.origin is not Origin.FLAG


def to_env(settings: Settings) -> dict[str, str]:
    """Environment variables from which `load` makes the same settings again, in a child process.

    Every knob is named, so that a variable or a file that the child finds changes none of them.
    """
    return {knob.env: _to_text(getattr(settings, name)) for name, knob in KNOBS.items()}


def without_secrets(env: MutableMapping[str, str]) -> Mapping[str, str]:
    """`env`, whatever becomes of it, for a process that runs others' code: `load` makes the same
    settings of it, but for the values that are shown to nobody."""
    return ChainMap({knob.env: "" for knob in KNOBS.values() if knob.is_secret}, env)


def find_file(env: Mapping[str, str], directory: Path) -> Path | None:
    """The settings file that LEDGERQ_SETTINGS_FILE names, else ledgerq.toml in `directory`."""
    named = env.get(FILE_VARIABLE)
    if named:
        return Path(named)
    usual = directory / FILE_NAME
    return usual if usual.is_file() else None


def _flags(flags: Mapping[str, Any]) -> Iterator[tuple[Source, str, Any]]:
    for name, value in flags.items():
        if value is not None:
            names = KNOBS[name].flags if name in KNOBS else (_flag(name),)
            # Which of its names was used, nobody knows any more.
            yield Source(Origin.FLAG, " or ".join(names)), name, value


def _environment(env: Mapping[str, str]) -> Iterator[tuple[Source, str, Any]]:
    for variable, value in env.items():
        if variable.startswith(ENV_PREFIX) and variable != FILE_VARIABLE:
            name = variable.removeprefix(ENV_PREFIX).lower()
            yield Source(Origin.ENVIRONMENT, variable), name, value


def _file(file: Path | None) -> Iterator[tuple[Source, str, Any]]:
    if file is None:
        return
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SettingsError([f"settings file {file}: {reason}"]) from error
    for name, value in content.items():
        yield Source(Origin.FILE, str(file)), name, value


def _parse(knob: Knob, given: Any, *, strict: bool) -> Any:
    """The value of `knob`, or `msgspec.ValidationError`. `strict`: a number is not text."""
    if isinstance(given, str):
        if given == "" and knob.default is None:
            return None
        if isinstance(knob.default, tuple):
            given = [item.strip() for item in given.split(",") if item.strip()]
    return msgspec.convert(given, knob.type, strict=strict)


def _to_text(value: Any) -> str:
    match value:
        case None:
            return ""
        case tuple():
            return ",".join(value)  # pyright: ignore[reportUnknownArgumentType] # only TaskType
        case _:
            return str(value)


def _disagreements(settings: Settings, sources: Mapping[str, Source]) -> Iterator[str]:
    """What is wrong with pairs of settings, each of which is within its own bounds."""
    if settings.lease_ms < 2 * settings.heartbeat_ms:
        # One lost heartbeat must not cost a worker its tasks.
        yield (
            f"lease_ms: expected at least twice heartbeat_ms, got {settings.lease_ms}"
            f" ({sources['lease_ms']}) and {settings.heartbeat_ms} ({sources['heartbeat_ms']})"
        )
    if settings.retry_cap_ms < settings.retry_base_ms:
        yield (
            f"retry_cap_ms: expected at least retry_base_ms, got {settings.retry_cap_ms}"
            f" ({sources['retry_cap_ms']}) and {settings.retry_base_ms}"
            f" ({sources['retry_base_ms']})"
        )


def _callback_problems(settings: Settings, sources: Mapping[str, Source]) -> Iterator[str]:
    wrong = False
    for entry in settings.callback_hosts:
        try:
            parse_entry(entry)
        except ValueError as error:
            wrong = True
            yield f"callback_hosts: {error} ({sources['callback_hosts']})"
    if settings.callback_retry_cap_ms < settings.callback_retry_base_ms:
        yield (
            "callback_retry_cap_ms: expected at least callback_retry_base_ms, got"
            f" {settings.callback_retry_cap_ms} ({sources['callback_retry_cap_ms']})"
        )
    if wrong:
        return
    allowed = AllowList(settings.callback_hosts)
    for task_type, url in settings.callback_url_of.items():
        if not allowed.allows_url(url):
            yield (
                f"callback_urls: expected URLs whose hosts callback_hosts names, got {url!r} for"
                f" {task_type} ({sources['callback_urls']})"
            )


def _unknown(source: Source, name: str) -> str:
    match source.origin:
        case Origin.FLAG:
            where, given, valid = "flag", source.name, [f for k in KNOBS.values() for f in k.flags]
        case Origin.ENVIRONMENT:
            where, given = "environment variable", source.name
            valid = [FILE_VARIABLE, *(knob.env for knob in KNOBS.values())]
        case _:
            where, given, valid = f"settings file {source.name}: key", name, list(KNOBS)
    closest = difflib.get_close_matches(given, valid, n=1, cutoff=0)[0]
    return f"{where} {given}: no such setting; the closest is {closest}"


def _quoted(knob: Knob, given: Any) -> str:
    if knob.is_secret:
        return "something else"
    text = masked(repr(given))
    return text if len(text) <= 80 else f"{text[:77]}..."


def masked(text: str) -> str:
    """`text` without the passwords that a URL can carry, and without keys."""
    keyless = re.sub(r"whsec_[A-Za-z0-9+/=]+", "whsec_***", text)
    return re.sub(r"password=[^&]*", "password=***", re.sub(r":/*.*@", "://***@", keyless))


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _knob(field: msgspec.structs.FieldInfo) -> Knob:
    described = inspect.type_info(field.type)
    if not isinstance(described, inspect.Metadata):
        raise TypeError(f"setting {field.name} has no description")
    return Knob(
        name=field.name,
        env=ENV_PREFIX + field.name.upper(),
        flag=_notes(described).get("flag", _flag(field.name)),
        also=_notes(described).get("also"),
        type=field.type,
        default=field.default,
        expected=_expected(described),
        description=_notes(described)["description"],
        is_secret=_is_secret(described.type),
    )


def _is_secret(kind: inspect.Type) -> bool:
    return isinstance(kind, inspect.VarTupleType) and "secret" in _notes(kind.item_type)


def _notes(described: Any) -> dict[str, str]:
    """The title, the description and the extras of a `Metadata`, whose dicts are not typed."""
    return {**(described.extra_json_schema or {}), **(described.extra or {})}


def _expected(kind: inspect.Type) -> str:
    """What a value of this type looks like, in words for a person."""
    match kind:
        case inspect.Metadata():
            return _notes(kind).get("title") or _expected(kind.type)
        case inspect.UnionType(types=(inner, _)):
            return f"{_expected(inner)}, or nothing"
        case inspect.VarTupleType(item_type=item):
            return f"a list of {_expected(item)}"
        case inspect.EnumType(cls=choices):
            return f"one of {', '.join(str(choice.value) for choice in choices)}"
        case inspect.IntType(ge=least, le=most):
            return f"a whole number from {least} to {most}"
        case inspect.FloatType(ge=least, le=most):
            return f"a number from {least} to {most}"
        case inspect.StrType():
            return "text that is not empty"
        case _:
            raise TypeError(f"settings of type {kind} have no description yet")


KNOBS: Mapping[str, Knob] = {field.name: _knob(field) for field in msgspec.structs.fields(Settings)}
