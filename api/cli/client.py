"""The REST API as client commands call it; whatever goes wrong is one clear line."""

import getpass
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, Final, Self
from urllib.parse import quote

import msgspec

from api.cli.answers import Answer, Explanation, Limits, Task, Worker, Workers
from api.cli.failures import CliError
from api.client import (
    Client,
    InvalidRequest,
    LedgerqError,
    Refused,
    Retries,
    UnexpectedAnswer,
    Unreachable,
)
from api.client.calls import Call, Reply
from api.client.keys import key_of
from ledger.identity import is_task_id

TASKS: Final = "/api/v1/tasks"
DEAD_LETTERS: Final = "/api/v1/dead-letters"
LIMITS: Final = "/api/v1/limits"
SYSTEM_EVENTS_CHUNK: Final = 1_000
ONCE: Final = Retries(calls_max=1)
"""Who sits at a terminal is told at once, and tries again by hand."""


class _System(msgspec.Struct, frozen=True):
    workers: msgspec.Raw


class _SystemEvents(msgspec.Struct, frozen=True):
    events: list[msgspec.Raw]
    next_after: int | None = None


class _TaskList(msgspec.Struct, frozen=True):
    tasks: list[msgspec.Raw]


class ServiceRefused(CliError):
    """The service answered with an error; its message says what was wrong."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(str(refused))
        self.message = refused.message
        self.code = refused.code
        self.details = refused.details


class Service:
    """A ledgerq service at `url`. Every method raises CliError: ServiceRefused for what the service
    itself refuses."""

    def __init__(self, url: str, *, wait_seconds_max: int = 60) -> None:
        self.url = url.rstrip("/")
        self._wait_seconds_max = wait_seconds_max
        try:
            self._client = Client(self.url, retries=ONCE)
        except ValueError as error:
            raise CliError(f"--url {url}: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def submit(self, body: bytes, idempotency_key: str | None) -> Task:
        """Hand over one task."""
        return _task(self._call("POST", TASKS, body=body, headers=_keyed(idempotency_key)))

    def submit_batch(self, items: Sequence[bytes], idempotency_key: str | None) -> list[Task]:
        """Hand over several, or none of them."""
        body = b"[" + b",".join(items) + b"]"
        answer = self._call("POST", f"{TASKS}/batch", body=body, headers=_keyed(idempotency_key))
        return [_task(bytes(raw)) for raw in _decode(answer, _TaskList).tasks]

    def task(self, task_id: str, **query: str | int | float | None) -> Task:
        """The task; `version`, `as_of` and `wait` as in the API."""
        wait_s = query.get("wait") or 0
        given = {name: str(value) for name, value in query.items() if value is not None}
        return _task(self._call("GET", _path(task_id), query=given, wait_s=float(wait_s)))

    def finished(self, task_id: str, seconds: float | None) -> Task:
        """The task once it is finished, or as it is after so many seconds (None: however long)."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            left = self._wait_seconds_max if deadline is None else deadline - time.monotonic()
            wait_s = round(max(0.0, min(left, self._wait_seconds_max)), 3)
            task = self.task(task_id, wait=wait_s)
            if task.finished or (deadline is not None and time.monotonic() >= deadline):
                return task

    def events(self, task_id: str) -> bytes:
        """The history, as JSON."""
        return self._call("GET", f"{_path(task_id)}/events")

    def proof(self, task_id: str) -> bytes:
        """The file that proves the history."""
        return self._call("GET", f"{_path(task_id)}/proof")

    def explain(self, task_id: str) -> Explanation:
        """Why the task is where it is."""
        answer = self._call("GET", f"{_path(task_id)}/explain")
        return msgspec.structs.replace(_decode(answer, Explanation), json=msgspec.Raw(answer))

    def workers(self) -> Workers:
        """The workers that were heard of."""
        raw = _decode(self._call("GET", "/api/v1/stats/system"), _System).workers
        return Workers(_decode(bytes(raw), list[Worker]), raw)

    def tasks(self, query: Mapping[str, str]) -> Answer:
        """A page of the list; the query as in the API."""
        return _answer(self._respond("GET", TASKS, query=query))

    def task_stats(self, query: Mapping[str, str]) -> Answer:
        """Counts of tasks; the query as in the API."""
        return _answer(self._respond("GET", "/api/v1/stats/tasks", query=query))

    def dead_letters(self, query: Mapping[str, str]) -> Answer:
        """A page of failed tasks by the way in which they failed; the query as in the API."""
        return _answer(self._respond("GET", DEAD_LETTERS, query=query))

    def retry_dead_letters(self, body: bytes, position: str | None) -> Answer:
        """Queue failed tasks again; the body as in the API. `position`: see at least that."""
        seen = {} if position is None else {"ledger-position": position}
        path = f"{DEAD_LETTERS}/retry"
        return _answer(self._respond("POST", path, body=body, headers=seen))

    def pause(self, task_type: str, reason: str | None) -> bytes:
        """Have no more tasks of a type taken; the answer as JSON."""
        body = None if reason is None else msgspec.json.encode({"reason": reason})
        path = f"/api/v1/queues/{_segment(task_type)}/pause"
        return self._call("POST", path, body=body)

    def resume(self, task_type: str) -> bytes:
        """Have tasks of a type taken again; the answer as JSON."""
        path = f"/api/v1/queues/{_segment(task_type)}/resume"
        return self._call("POST", path)

    def limits(self) -> Limits:
        """What may run at once, where that is limited."""
        answer = self._call("GET", LIMITS)
        return msgspec.structs.replace(_decode(answer, Limits), json=msgspec.Raw(answer))

    def set_limit(self, scope: str, name: str, limit: int) -> bytes:
        """Limit a type or a knowledge base; the answer as JSON."""
        body = msgspec.json.encode({"limit": limit})
        return self._call("PUT", _limit_path(scope, name), body=body)

    def remove_limit(self, scope: str, name: str) -> bytes:
        """Limit it no more; the answer as JSON."""
        return self._call("DELETE", _limit_path(scope, name))

    def system_events(self) -> bytes:
        """All that happened to the service as a whole, as JSON; read page by page."""
        events: list[msgspec.Raw] = []
        after: int | None = 0
        while after is not None:
            query = {"after": str(after), "limit": str(SYSTEM_EVENTS_CHUNK)}
            answer = self._call("GET", "/api/v1/system/events", query=query)
            page = _decode(answer, _SystemEvents)
            events += page.events
            after = page.next_after
        return msgspec.json.encode(_SystemEvents(events))

    def cancel(self, task_id: str) -> bytes:
        """Cancel a task; the answer as JSON."""
        return self._call("DELETE", _path(task_id))

    def retry(self, task_id: str) -> Task:
        """Queue a task again."""
        return _task(self._call("POST", f"{_path(task_id)}/retry"))

    def feed(
        self, query: Mapping[str, str], on_change: Callable[[CliError | None], None]
    ) -> Generator[bytes]:
        """The JSON of each event, for ever. What happens while the service is away comes
        afterwards; `on_change` is told why it broke off, and None when it is there again."""

        def told(error: LedgerqError | None) -> None:
            on_change(error and self._clear(error))

        with self._clearly():
            yield from self._client.tell(query, None, told)

    def _call(self, method: str, path: str, **options: Any) -> bytes:
        """The body of the answer; options as of a Call."""
        return self._respond(method, path, **options).body

    def _respond(self, method: str, path: str, **options: Any) -> Reply:
        if method != "GET":
            options["headers"] = {**_by_user(), **options.get("headers", {})}
        with self._clearly():
            return self._client.call(Call(method=method, path=path, **options))

    @contextmanager
    def _clearly(self) -> Generator[None]:
        try:
            yield
        except LedgerqError as error:
            raise self._clear(error) from error

    def _clear(self, error: LedgerqError) -> CliError:
        """The error as a person at a terminal can use it."""
        match error:
            case Refused():
                return ServiceRefused(error)
            case UnexpectedAnswer():
                return CliError(
                    f"{self.url} answered {_status(error.status)}, not as a ledgerq would: is --url"
                    " right?"
                )
            case Unreachable(timeout_s=float()):
                return CliError(f"{error.message}: see `ledgerq doctor`")
            case Unreachable(may_be_done=False):
                return CliError(f"{error.message}: start one with `ledgerq up`, or give --url")
            case _:
                return CliError(error.message)


def _answer(reply: Reply) -> Answer:
    behind = reply.headers.get("projection-lag", "")
    # An answer that lacks an event of the same ms is old too.
    known = behind.isascii() and behind.isdigit()
    behind_ms = max(1, int(behind)) if known else 0
    return Answer(reply.body, behind_ms, reply.headers.get("ledger-position"))


def _task(answer: bytes) -> Task:
    return msgspec.structs.replace(_decode(answer, Task), json=msgspec.Raw(answer))


def _decode(answer: bytes, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(answer, type=kind)
    except msgspec.MsgspecError as error:
        raise CliError(f"the service answered something unexpected: {error}") from error


def _path(task_id: str) -> str:
    if not is_task_id(task_id):
        # What cannot be an id might lead to another path.
        raise CliError(f"there is no task with the id {task_id} (TASK_NOT_FOUND)")
    return f"{TASKS}/{task_id}"


def _limit_path(scope: str, name: str) -> str:
    return f"{LIMITS}/{scope}s/{_segment(name)}"


def _segment(name: str) -> str:
    """A name as a piece of a path, whatever it holds."""
    if name in ("", ".", ".."):
        raise CliError(f"there is nothing of the name {name!r}")
    return quote(name, safe="")


def _by_user() -> dict[str, str]:
    """Who asks, for the event that comes of it."""
    user = own_name()
    return {"x-actor": user} if user else {}


def own_name() -> str:
    """Who runs this; empty where that is not known."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        return ""
    return user if user.isascii() and user.isprintable() else ""


def _keyed(idempotency_key: str | None) -> dict[str, str]:
    return {} if idempotency_key is None else {"idempotency-key": checked_key(idempotency_key)}


def checked_key(idempotency_key: str, *, of_many: bool = False) -> str:
    """The same. Raises CliError for a key that the service would not take."""
    try:
        return key_of(idempotency_key, of_many=of_many)
    except InvalidRequest as error:
        raise CliError(error.message.replace("idempotency_key", "--idempotency-key", 1)) from error


def _status(number: int) -> str:
    try:
        return f"{number} {HTTPStatus(number).phrase}"
    except ValueError:
        return str(number)
