"""Events as files that other programs read: JSON lines, CloudEvents, Parquet."""

from collections.abc import Callable, Sequence
from datetime import UTC
from importlib import import_module
from typing import IO, Any, Final, Literal, Protocol

import msgspec

from api.replay.event_json import event_line, meta_of, one_line
from api.wire import json_or_text, moment_or_nothing
from ledger.codec import encode
from ledger.store import Recorded

Format = Literal["jsonl", "parquet", "cloudevents"]

ROWS_AT_ONCE: Final = 10_000
BYTES_AT_ONCE: Final = 16 * 1024 * 1024
"""A group of rows of a Parquet file is written once so much is gathered."""


class NoParquet(Exception):
    """What writes Parquet is not installed."""

    def __init__(self) -> None:
        super().__init__("--format parquet needs pyarrow: pip install 'ledgerq[parquet]'")


class Writer(Protocol):
    """Writes events to a file that is open, and is closed by whoever opened it."""

    def write(self, events: Sequence[Recorded]) -> None:
        """Add these."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


def writer_of(kind: Format, file: IO[bytes], epoch: str) -> Writer:
    """Raises NoParquet."""
    match kind:
        case "jsonl":
            return _Lines(file, event_line)
        case "cloudevents":
            return _Lines(file, lambda event: cloud_event(event, epoch))
        case "parquet":
            return _Parquet(file)


class _Lines:
    def __init__(self, file: IO[bytes], line: Callable[[Recorded], bytes]) -> None:
        self._file = file
        self._line = line

    def write(self, events: Sequence[Recorded]) -> None:
        self._file.write(b"".join([self._line(event) + b"\n" for event in events]))

    def close(self) -> None:
        self._file.flush()


class CloudEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """An event in the format of CloudEvents 1.0 (https://cloudevents.io), as JSON."""

    id: str
    source: str
    type: str
    subject: str
    time: str
    data: msgspec.Raw
    ledgerqversion: int
    specversion: Literal["1.0"] | msgspec.UnsetType = msgspec.UNSET
    datacontenttype: str | msgspec.UnsetType = msgspec.UNSET
    ledgerqactor: str = ""
    ledgerqrequest: str = ""
    traceparent: str = ""


def cloud_event(event: Recorded, epoch: str) -> bytes:
    """One line, without its end. `source` and `id` together are found nowhere else."""
    meta = meta_of(event)
    told = CloudEvent(
        specversion="1.0",
        id=str(event.position),
        source=f"/ledgerq/{epoch}",
        type=f"ledgerq.{event.type}",
        subject=event.task_id,
        time=moment_or_nothing(event.at),
        datacontenttype="application/json",
        data=json_or_text(event.data),
        ledgerqversion=event.version,
        ledgerqactor=meta.actor,
        ledgerqrequest=meta.request,
        traceparent=meta.trace,
    )
    return one_line(encode(told))


class _Parquet:
    def __init__(self, file: IO[bytes]) -> None:
        try:
            arrow: Any = import_module("pyarrow")
            parquet: Any = import_module("pyarrow.parquet")
        except ImportError as error:
            raise NoParquet from error
        self._arrow = arrow
        text, number = arrow.string(), arrow.int64()
        self._schema = arrow.schema(
            [
                ("position", text),
                ("partition", arrow.int32()),
                ("task_id", text),
                ("type", text),
                ("version", number),
                ("at", arrow.timestamp("ms", tz=str(UTC))),
                ("actor", text),
                ("request", text),
                ("trace", text),
                ("data", text),
            ]
        )
        self._writer = parquet.ParquetWriter(file, self._schema, compression="zstd")
        self._rows: list[tuple[object, ...]] = []
        self._bytes = 0

    def write(self, events: Sequence[Recorded]) -> None:
        for event in events:
            meta, data = meta_of(event), event.data.decode(errors="replace")
            self._rows.append(
                (
                    *(str(event.position), event.position.partition, event.task_id, event.type),
                    *(event.version, event.at, meta.actor, meta.request, meta.trace, data),
                )
            )
            self._bytes += len(event.data)
            if len(self._rows) >= ROWS_AT_ONCE or self._bytes >= BYTES_AT_ONCE:
                self._write()

    def close(self) -> None:
        self._write()
        self._writer.close()

    def _write(self) -> None:
        if self._rows:
            columns = [
                self._arrow.array(column, type=field.type)
                for column, field in zip(zip(*self._rows, strict=True), self._schema, strict=True)
            ]
            self._writer.write_table(self._arrow.Table.from_arrays(columns, schema=self._schema))
            self._rows, self._bytes = [], 0
