"""The flags that commands share, as types; what they are called and mean stands in the settings.

A flag that was not given is None: bounds, defaults and sources are the settings' business.
"""

import os
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from ledger.knobs import KNOBS
from ledger.settings import Durability, LogFormat, LogLevel
from ledger.settings_sources import Loaded, load
from ledger.settings_sources import find_file as find_settings_file


def _knob(name: str, group: str = "Parameters", metavar: str | None = None) -> Parameter:
    knob = KNOBS[name]
    default = f" [default: {knob.default_text}]" if knob.default_text else ""
    return Parameter(
        name=knob.flags,
        help=f"{knob.description}{default}",
        group=group,
        metavar=metavar,
    )


Host = Annotated[str | None, _knob("host")]
Port = Annotated[int | None, _knob("port")]
GrpcPort = Annotated[int | None, _knob("grpc_port")]
RedisUrl = Annotated[str | None, _knob("redis_url", metavar="URL")]
DataDir = Annotated[str | None, _knob("data_dir", metavar="DIR")]
ReadModelDir = Annotated[str | None, _knob("read_model_dir", metavar="DIR")]
SkipEvents = Annotated[str | None, _knob("skip_events", metavar="POSITION,...")]
SyncMode = Annotated[Durability | None, _knob("durability")]
Handlers = Annotated[str | None, _knob("handlers", metavar="MODULE")]
KeyFile = Annotated[str | None, _knob("archive_key_file", metavar="FILE")]
CallbackHosts = Annotated[str | None, _knob("callback_hosts", metavar="HOST,...")]
TaskTypes = Annotated[str | None, _knob("task_types", metavar="TYPE,...")]
Workers = Annotated[int | None, _knob("workers")]
Concurrency = Annotated[int | None, _knob("concurrency")]
MaxMemory = Annotated[int | None, _knob("max_memory_mib", metavar="MIB")]
MaxTasks = Annotated[int | None, _knob("max_tasks")]
SilenceTimeout = Annotated[int | None, _knob("silence_timeout_ms", metavar="MS")]
DrainTimeout = Annotated[int | None, _knob("drain_timeout_ms", metavar="MS")]
Lease = Annotated[int | None, _knob("lease_ms", metavar="MS")]
Level = Annotated[LogLevel | None, _knob("log_level", group="Logs")]
Format = Annotated[LogFormat | None, _knob("log_format", group="Logs")]
Url = Annotated[str | None, _knob("url", metavar="URL")]
AsJson = Annotated[bool, Parameter(name="--json", help="print JSON, for programs")]
TaskType = Annotated[str, Parameter(help="the type of the tasks")]
TaskId = Annotated[str, Parameter(help="id of the task")]


def load_settings(**flags: Any) -> Loaded:
    """Settings from these flags (by knob name), the environment and the settings file.

    Raises SettingsError.
    """
    return load(flags, os.environ, find_settings_file(os.environ, Path.cwd()))


def service_url(url: str | None) -> str:
    """Where the API is: the flag or the setting. Raises SettingsError."""
    return load_settings(url=url).settings.url
