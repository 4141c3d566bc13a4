"""How the roles log: structlog on standard error, as JSON for machines or as text for a person.

One record is one line and one write, so that processes sharing an output do not mix theirs. What
libraries say through `logging` comes out the same way.
"""

import contextlib
import json
import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, BinaryIO, Final, cast

import msgspec
import structlog
from structlog.dev import ConsoleRenderer, plain_traceback
from structlog.typing import Processor

from ledger.settings import LogFormat, Settings

_encode = msgspec.json.Encoder(enc_hook=repr).encode

_LEVELS: Final = (logging.CRITICAL, logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG)


def configure(settings: Settings, role: str, stream: BinaryIO | None = None) -> None:
    """Log as `settings` say, from now on; every record names the `role`, such as `worker-2`.

    Called once, before the first record. `stream` is standard error unless given.
    """
    output: BinaryIO = sys.stderr.buffer if stream is None else stream
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    structlog.configure(
        processors=_processors(role, as_json=_as_json(settings.log_format, output), stream=output),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.BytesLoggerFactory(cast("BinaryIO", _Forgiving(output))),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_FromLogging()], level=level, force=True)


def _as_json(wanted: LogFormat, stream: BinaryIO) -> bool:
    return wanted is LogFormat.JSON or (wanted is LogFormat.AUTO and not stream.isatty())


def _processors(role: str, *, as_json: bool, stream: BinaryIO) -> list[Processor]:
    def name_role(_: Any, __: str, record: MutableMapping[str, Any]) -> Mapping[str, Any]:
        return {"role": role, **record}

    common: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.processors.add_log_level,
        name_role,
    ]
    if as_json:
        return [
            *common,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _to_json,
        ]
    text = ConsoleRenderer(
        colors=stream.isatty(),
        exception_formatter=plain_traceback,
        pad_event_to=20,
        pad_level=False,
    )
    clock = structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False)
    return [*common, clock, _role_as_logger, text, _to_bytes]


def _to_json(_: Any, __: str, record: MutableMapping[str, Any]) -> bytes:
    head = {key: record.pop(key) for key in ("timestamp", "level", "role", "logger", "event")}
    try:
        return _encode({**head, **record})
    except (ValueError, TypeError):
        # A value with a lone surrogate, or a mapping with odd keys: a record is never lost for it.
        return json.dumps({**head, **record}, default=repr, skipkeys=True).encode()


def _role_as_logger(_: Any, __: str, record: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """For a person, which process it was says more than which part of it."""
    record["logger"] = record.pop("role")
    return record


def _to_bytes(_: Any, __: str, text: Any) -> bytes:
    return text.encode(errors="backslashreplace")


class _Forgiving:
    """An output that may go away, as a terminal or a pipe does: work must not end for that."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            self._stream.write(data)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


class _FromLogging(logging.Handler):
    """Hands records of the standard library's logging on to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        level = next((known for known in _LEVELS if record.levelno >= known), logging.DEBUG)
        exception = {"exc_info": record.exc_info} if record.exc_info else {}
        structlog.get_logger(record.name).log(level, record.getMessage(), **exception)
