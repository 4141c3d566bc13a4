"""Many submissions from a file, in requests of a size that the service takes."""

import contextlib
import sys
from collections.abc import Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from api.cli.answers import Task
from api.cli.client import Service, ServiceRefused, checked_key
from api.cli.failures import CliError
from api.cli.progress import counting
from api.client.submission import chunks
from ledger.settings import Settings

PROGRESS_FROM_TASKS: Final = 2


class Item(msgspec.Struct, frozen=True):
    """One submission as JSON, and the line it came from, counted from 1."""

    line: int
    json: bytes


def submit(
    service: Service,
    source: str,
    defaults: Mapping[str, Any],
    idempotency_key: str | None,
    settings: Settings,
) -> list[Task]:
    """Hand over every line of the file `source` (`-`: standard input). Raises CliError, which
    says how far it came: with an idempotency key, the same call goes on from there.

    Each request has a key of its own, `<key>/<number>`, since its items are numbered anew.
    """
    if idempotency_key is not None:
        checked_key(idempotency_key, of_many=True)
    tasks: list[Task] = []
    with _opened(source) as lines, counting("submitting") as advance:
        parts = chunks(
            _items(lines, defaults),
            settings.batch_items_max,
            settings.batch_body_bytes_max,
            lambda item: item.json,
        )
        try:
            for number, chunk in enumerate(parts, 1):
                key = None if idempotency_key is None else f"{idempotency_key}/{number}"
                tasks += _submit_chunk(service, chunk, key)
                advance(len(chunk))
        except CliError as error:
            raise CliError(f"{error}; {_so_far(tasks, idempotency_key)}") from error
    if not tasks:
        raise CliError(f"--batch {source}: it holds no submission")
    return tasks


def finished(service: Service, tasks: list[Task]) -> list[Task]:
    """The tasks when all of them are finished."""
    if len(tasks) < PROGRESS_FROM_TASKS:
        return [service.finished(task.id, None) for task in tasks]
    ended: list[Task] = []
    with counting("waiting", len(tasks)) as advance:
        for task in tasks:
            ended.append(service.finished(task.id, None))
            advance(1)
    return ended


def _submit_chunk(service: Service, chunk: list[Item], key: str | None) -> list[Task]:
    try:
        return service.submit_batch([item.json for item in chunk], key)
    except ServiceRefused as refused:
        index = refused.details.get("index")
        if not isinstance(index, int) or not 0 <= index < len(chunk):
            raise
        message = refused.message.removeprefix(f"item {index}: ")
        raise CliError(f"line {chunk[index].line}: {message} ({refused.code})") from refused


def _so_far(tasks: list[Task], idempotency_key: str | None) -> str:
    if not tasks:
        return "no task was created before that"
    again = (
        "the same call again goes on from there"
        if idempotency_key
        else "with --idempotency-key, the same call could be made again"
    )
    return f"{len(tasks)} tasks were created before that, the last one {tasks[-1].id}; {again}"


def _items(lines: Iterable[bytes], defaults: Mapping[str, Any]) -> Iterator[Item]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            fields = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
            # Values pass through as they are: the service says what is wrong with them.
            yield Item(number, msgspec.json.encode({**defaults, **fields}))
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise CliError(f"line {number}: expected a JSON object: {error}") from error


@contextlib.contextmanager
def _opened(source: str) -> Generator[IO[bytes]]:
    if source == "-":
        yield sys.stdin.buffer
        return
    try:
        opened = Path(source).open("rb")
    except OSError as error:
        raise CliError(f"--batch {source}: {error.strerror}") from error
    with opened:
        yield opened
