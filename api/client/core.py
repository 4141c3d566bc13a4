"""What a client does, without doing it: each method is a generator that yields what is to be sent,
is told what came back, and returns the typed result.

`Client` and `AsyncClient` drive these, each in its own way of waiting; what is sent, what is tried
again and what an answer means is decided here, once.
"""

import math
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypedDict, TypeVar
from uuid import UUID

from api.client import submission as submissions
from api.client.answers import (
    Canceled,
    History,
    QueueInfo,
    SystemStats,
    Task,
    TaskList,
    TaskPage,
    TaskStats,
)
from api.client.calls import Call, NoAnswer, Pause, Reply, Told, decoded, error_of
from api.client.errors import (
    LedgerqError,
    NotFound,
    TaskNotFinished,
    TaskNotRetryable,
    VersionConflict,
)
from api.client.json_text import json_of
from api.client.keys import key_of
from api.client.positions import Writes
from api.client.retries import Retries
from api.client.submission import Submission
from api.client.task_ids import TaskId
from api.client.task_ids import text_of as id_of
from api.client.uploads import Form, Uploaded
from api.comma_list import text_of
from ledger.task import Status

TASKS: Final = "/api/v1/tasks"
UPLOAD: Final = "/api/v1/upload"
STORING_S: Final = 60.0
"""How long a service may take to store files that it has."""

LONG_POLL_S: Final = 60.0
"""The longest `wait` that a service takes, unless its settings say otherwise."""

REPEATED_FOR_S: Final = 1.0
"""A `wait` for less is repeated for so long all the same: a connection that was kept alive is found
to be broken only by the next call."""

Result = TypeVar("Result")
Texts = str | UUID | Sequence[str | UUID]
Tasks = list[Task]
"""Where a class has a method of the name `list`."""

LISTS: Final = frozenset(
    ("kb_id", "status", "task_type", "priority", "worker_id", "fingerprint", "task_id")
)
"""Parameters that take several values."""


Headers = Mapping[str, str] | Callable[[], Mapping[str, str]]
"""Of every request; or what gives those of each, as it is made."""

Flow = Generator[Call | Pause, Told, Result]
"""A method: told the outcome of each Call, and None after a Pause."""


class TaskFilter(TypedDict, total=False):
    """Which tasks: those that satisfy all that is given. A sequence names alternatives."""

    kb_id: Texts
    status: Texts
    task_type: Texts
    priority: Texts
    worker_id: Texts
    created_after: datetime | str
    """A time with an offset, or an age such as 90s, 15m, 1h, 7d."""
    created_before: datetime | str
    q: str
    """Stands in the error message."""
    fingerprint: Texts


class TaskOrder(TaskFilter, total=False):
    """Which tasks, and in which order."""

    sort_by: str
    sort_order: str
    """desc or asc."""
    page_size: int


class StatsFilter(TypedDict, total=False):
    """Which tasks are counted."""

    kb_id: Texts
    status: Texts
    task_type: Texts
    priority: Texts
    created_after: datetime | str
    as_of: datetime | str
    """As they were at that time, or so long ago: see docs/rest.md for what it takes."""


class Core:
    """The state that calls share: how often they are made, and what was written."""

    def __init__(
        self,
        retries: Retries | None = None,
        headers: Headers | None = None,
        long_poll_s: float = LONG_POLL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`headers` go with every request; a function is asked for those of each."""
        self.retries = _known("retries", retries, Retries, "Retries(...)") or Retries()
        self._headers = headers if callable(headers) else dict(headers or {})
        self.clock = clock
        self._long_poll_s = long_poll_s
        self._writes = Writes(clock)

    @property
    def headers(self) -> Mapping[str, str]:
        """Those of the request that is made now."""
        return self._headers() if callable(self._headers) else self._headers

    def answered(self, call: Call) -> Flow[Reply]:
        """The answer to a call that may be made again. Raises LedgerqError."""
        return (yield from self._asked(lambda: call))

    def _asked(self, made: Callable[[], Call], until_s: float = math.inf) -> Flow[Reply]:
        """The same of a call that is made anew each time, until then at the latest."""
        calls = 0
        while True:
            call = made()
            told = yield call
            calls += 1
            assert isinstance(told, Reply | NoAnswer), call  # noqa: S101 - so drivers do
            error = error_of(told)
            if isinstance(told, Reply) and error is None:
                if call.method != "GET":
                    self._writes.note(told.headers.get("ledger-position"))
                return told
            assert error is not None  # noqa: S101 - there was no answer, or a bad one
            is_repeatable = call.form is None or call.form.is_repeatable
            pause_s = self.retries.pause_s(calls, error) if is_repeatable else None
            left_s = until_s - self.clock()
            if pause_s is None or left_s <= 0:
                error.calls = calls
                raise error
            yield Pause(min(pause_s, left_s))

    # -- hand over ----------------------------------------------------------------------------

    def submit(self, submission: Submission, idempotency_key: str | UUID | None) -> Flow[Task]:
        """One task; the key makes it safe to send it again when the answer is lost."""
        call = _submission(TASKS, submission.encoded(), key_of(idempotency_key))
        return decoded((yield from self.answered(call)), Task)

    def submit_many(
        self, given: Iterable[Submission], idempotency_key: str | UUID | None
    ) -> Flow[Tasks]:
        """As many as there are, in as many requests as they need."""
        key, tasks = key_of(idempotency_key, of_many=True), Tasks()
        items = submissions.encoded(given)
        parts = submissions.chunks(
            items, submissions.BATCH_ITEMS_MAX, submissions.BATCH_BYTES_MAX, bytes
        )
        try:
            for number, chunk in enumerate(parts, 1):
                body = b"[" + b",".join(chunk) + b"]"
                call = _submission(f"{TASKS}/batch", body, f"{key}/{number}")
                tasks += decoded((yield from self.answered(call)), TaskList).tasks
        except LedgerqError as error:
            error.submitted = tasks
            raise
        except Exception as error:
            # What cannot be sent, or whatever ended the caller's own iterator.
            if tasks:
                told = f"{len(tasks)} tasks before it were handed over, with the key {key!r}"
                error.add_note(told)
            raise
        return tasks

    def upload(self, form: Form, idempotency_key: str | UUID | None) -> Flow[Uploaded]:
        """A task for each file."""
        call = Call(
            method="POST",
            path=UPLOAD,
            form=form,
            headers={"idempotency-key": key_of(idempotency_key)},
            wait_s=STORING_S,
        )
        return decoded((yield from self.answered(call)), Uploaded)

    # -- look ---------------------------------------------------------------------------------

    def get(
        self,
        task_id: TaskId,
        version: int | None = None,
        as_of: datetime | str | None = None,
    ) -> Flow[Task]:
        """The task as it is, or was."""
        query = query_of({"version": version, "as_of": as_of})
        call = Call(method="GET", path=_path(task_id), query=query)
        return decoded((yield from self.answered(call)), Task)

    def wait(self, task_id: TaskId, timeout_s: float | None) -> Flow[Task]:
        """The task once it is finished. Raises TaskNotFinished when time is up before."""
        _known("timeout_s", timeout_s, int | float, "seconds")
        began_s = self.clock()
        deadline_s = math.inf if timeout_s is None else began_s + timeout_s
        path = _path(task_id)

        def made() -> Call:
            wait_s = round(min(max(deadline_s - self.clock(), 0.0), self._long_poll_s), 3)
            return Call(method="GET", path=path, query=query_of({"wait": wait_s}), wait_s=wait_s)

        until_s = max(deadline_s, began_s + REPEATED_FOR_S)
        while True:
            task = decoded((yield from self._asked(made, until_s)), Task)
            if task.finished:
                return task
            # A service that stops answers before.
            if timeout_s is not None and self.clock() >= deadline_s:
                raise TaskNotFinished(task, timeout_s)

    def history(self, task_id: TaskId) -> Flow[History]:
        """All that happened to the task."""
        call = Call(method="GET", path=f"{_path(task_id)}/events")
        return decoded((yield from self.answered(call)), History)

    def proof(self, task_id: TaskId) -> Flow[bytes]:
        """What a third party can check of it."""
        call = Call(method="GET", path=f"{_path(task_id)}/proof")
        return (yield from self.answered(call)).body

    def list(
        self, wanted: TaskOrder, page: int | None = None, cursor: str | None = None
    ) -> Flow[TaskPage]:
        """A page."""
        query = query_of({**wanted, "page": page, "cursor": cursor})
        return decoded((yield from self._read(TASKS, query)), TaskPage)

    def stats(self, wanted: StatsFilter) -> Flow[TaskStats]:
        """Counts."""
        return decoded((yield from self._read("/api/v1/stats/tasks", query_of(wanted))), TaskStats)

    def system_stats(self) -> Flow[SystemStats]:
        """Workers, queues and pace."""
        return decoded((yield from self._read("/api/v1/stats/system", {})), SystemStats)

    def queues(
        self, task_type: str | None, priority: str | None, as_of: datetime | str | None
    ) -> Flow[QueueInfo]:
        """What waits."""
        query = query_of({"task_type": task_type, "priority": priority, "as_of": as_of})
        return decoded((yield from self._read("/api/v1/queues/info", query)), QueueInfo)

    def _read(self, path: str, query: Mapping[str, str]) -> Flow[Reply]:
        """An answer of the read model that has seen what this client wrote."""
        call = Call(method="GET", path=path, query=query, headers=self._writes.header())
        return (yield from self.answered(call))

    # -- change -------------------------------------------------------------------------------

    def cancel(self, task_id: TaskId, version: int | None) -> Flow[Canceled]:
        """Cancel it."""
        call = Call(method="DELETE", path=_path(task_id), headers=_at(version))
        try:
            return decoded((yield from self.answered(call)), Canceled)
        except VersionConflict as refused:
            done = yield from self._done_before(
                refused, task_id, version, {"status": Status.CANCELED}
            )
            return Canceled(done.id, "Task canceled successfully")

    def retry(self, task_id: TaskId, version: int | None) -> Flow[Task]:
        """Queue it again. When an answer was lost and the task is no longer failed, it was."""
        call = Call(method="POST", path=f"{_path(task_id)}/retry", headers=_at(version))
        try:
            return decoded((yield from self.answered(call)), Task)
        except TaskNotRetryable as refused:
            if refused.calls == 1:
                raise
            return (yield from self.get(task_id))
        except VersionConflict as refused:
            wished = {"status": Status.QUEUED, "retry_count": 0}
            return (yield from self._done_before(refused, task_id, version, wished))

    def progress(
        self, task_id: TaskId, progress: int, message: str | None, version: int | None
    ) -> Flow[Task]:
        """Report it."""
        said = {} if message is None else {"message": message}
        body = json_of({"progress": progress, **said})
        path = f"{_path(task_id)}/progress"
        call = Call(method="PUT", path=path, body=body, headers=_at(version))
        try:
            return decoded((yield from self.answered(call)), Task)
        except VersionConflict as refused:
            wished = {"status": Status.PROCESSING, "progress": progress, **said}
            return (yield from self._done_before(refused, task_id, version, wished))

    def _done_before(
        self,
        refused: VersionConflict,
        task_id: TaskId,
        version: int | None,
        wished: Mapping[str, Any],
    ) -> Flow[Task]:
        """The task, if what happened to it next was as wished: by a call whose answer was lost, so
        that the one after it met another version. Else raises the refusal."""
        if version is None or refused.calls == 1:
            raise refused
        try:
            then = yield from self.get(task_id, version=version + 1)
        except NotFound:
            raise refused from None
        if any(getattr(then, name) != value for name, value in wished.items()):
            raise refused
        return (yield from self.get(task_id))


def query_of(fields: Mapping[str, Any]) -> dict[str, str]:
    """Query parameters of what is given (None: it is not)."""
    return {name: _text(name, value) for name, value in fields.items() if value is not None}


def _text(name: str, value: Any) -> str:
    if name in LISTS:
        if isinstance(value, str | UUID):
            return text_of([str(value)])
        return text_of(map(str, _known(name, value, Iterable, "a text, or several")))
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _known(name: str, given: Any, kind: Any, expected: str) -> Any:
    """What was given, where it is of that kind, or None. Raises TypeError."""
    if given is None or isinstance(given, kind):
        return given
    raise TypeError(f"{name}: expected {expected}, got {type(given).__name__}")


def _submission(path: str, body: bytes, idempotency_key: str) -> Call:
    headers = {"idempotency-key": idempotency_key}
    return Call(method="POST", path=path, body=body, headers=headers)


def _path(task_id: TaskId) -> str:
    return f"{TASKS}/{id_of(task_id)}"


def _at(version: int | None) -> dict[str, str]:
    return {} if version is None else {"if-match": f'"{version}"'}
