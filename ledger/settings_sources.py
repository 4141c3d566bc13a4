"""Where the values of settings come from: flags, then `LEDGERQ_*` variables, then a TOML file, then
the default; the first one found counts."""

import difflib
import re
import tomllib
from collections import ChainMap
from collections.abc import Iterator, Mapping, MutableMapping
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from ledger.allow_list import AllowList, parse_entry
from ledger.knobs import ENV_PREFIX, KNOBS, Knob, flag_of, value_text
from ledger.settings import Settings

FILE_NAME = "ledgerq.toml"
FILE_VARIABLE = f"{ENV_PREFIX}SETTINGS_FILE"
SERVICE_LINK_VARIABLE = f"{ENV_PREFIX}SERVICE_HOST"
"""Kubernetes gives it, and others such as LEDGERQ_PORT, to pods beside a Service `ledgerq`."""


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
            yield knob, masked(value_text(getattr(self.settings, name))), self.sources[name]


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
    return {knob.env: value_text(getattr(settings, name)) for name, knob in KNOBS.items()}


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
            names = KNOBS[name].flags if name in KNOBS else (flag_of(name),)
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
