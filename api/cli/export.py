"""`ledgerq export`"""

import asyncio
import contextlib
import sys
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import IO, Annotated

from cyclopts import Parameter

from api.cli.failures import CliError
from api.cli.filters import Kbs, Types
from api.cli.flags import DataDir, RedisUrl, load_settings
from api.cli.output import counted
from api.cli.reading import (
    Actors,
    ArchiveAt,
    Epoch,
    Events,
    Since,
    Tasks,
    Traces,
    Until,
    chosen_span,
    filters_of,
    read_through,
    reading,
)
from api.replay.chosen import Filters
from api.replay.exports import Format, NoParquet, writer_of
from consumers.collector import collect_rarely
from ledger.settings import Settings
from ledger.store import Recorded


def export(
    *,
    format: Annotated[
        Format,
        Parameter(help="jsonl, cloudevents (one a line), or parquet, which needs a file"),
    ] = "jsonl",
    output: Annotated[
        Path | None,
        Parameter(
            help="the file; it is there once it is whole [default: standard output]",
            metavar="FILE",
        ),
    ] = None,
    since: Since = None,
    until: Until = None,
    task: Tasks = None,
    kb: Kbs = None,
    task_type: Types = None,
    event: Events = None,
    actor: Actors = None,
    trace: Traces = None,
    archive: ArchiveAt = None,
    epoch: Epoch = None,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
) -> int:
    """Writes every event, or those chosen, as `ledgerq replay` reads them: from the ledger and its
    archive, or an archive alone. Memory does not grow with their number."""
    if format == "parquet" and output is None:
        raise CliError("--format parquet needs a file: give --output")
    settings = load_settings(redis_url=redis_url, data_dir=data_dir).settings
    filters = filters_of(
        task=task, kb=kb, task_type=task_type, event=event, actor=actor, trace=trace
    )
    collect_rarely()
    try:
        with _file(output) as file:
            work = _export(settings, file, format, archive, epoch, since, until, filters)
            count = asyncio.run(work)
    except NoParquet as error:
        raise CliError(str(error)) from error
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CliError(f"--output {output}: {error.strerror or error}") from error
    if output is not None:
        print(f"wrote {counted(count, 'event')} to {output}")
    return 0


async def _export(
    settings: Settings,
    file: IO[bytes],
    format: Format,
    archive: str | None,
    epoch: str | None,
    since: str | None,
    until: str | None,
    filters: Filters,
) -> int:
    async with reading(settings, archive, epoch) as events:
        span = await chosen_span(events, since, until)
        writer = writer_of(format, file, await events.epoch())

        async def write(piece: Sequence[Recorded]) -> None:
            writer.write(piece)

        count = await read_through(events, span, filters, "exporting", write)
        writer.close()
    return count


@contextlib.contextmanager
def _file(output: Path | None) -> Generator[IO[bytes]]:
    """Standard output; or a file that takes its place when all went well."""
    if output is None:
        yield sys.stdout.buffer
        return
    partial = output.with_name(f"{output.name}.partial")
    try:
        with partial.open("wb") as file:
            yield file
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)
