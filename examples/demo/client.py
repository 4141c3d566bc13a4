"""The calls to the REST API that the story needs."""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final

import httpx2
import msgspec

from .failures import DemoError

WAIT_S: Final = 10
"""How long one request may wait for a task's end."""

ANSWER_TIMEOUT_S: Final = 20
CONNECTIONS_MAX: Final = 32

FINAL: Final = frozenset({"completed", "failed", "canceled"})


class Task(msgspec.Struct, frozen=True):
    """What the story looks at in a task."""

    id: str
    status: str
    payload: dict[str, Any]
    result: Any
    retry_count: int
    error_message: str
    worker_id: str | None
    created_at: datetime
    updated_at: datetime
    version: int

    @property
    def finished(self) -> bool:
        return self.status in FINAL


class Event(msgspec.Struct, frozen=True):
    """One line of a task's history."""

    position: str
    type: str
    version: int
    at: datetime
    data: dict[str, Any]


class _Tasks(msgspec.Struct):
    tasks: list[Task]


class _History(msgspec.Struct):
    events: list[Event]


class Client:
    """A service's API. Every call raises DemoError when it is refused or not answered in time."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self._http = http
        # Its own: the pool of connections would let requests wait with their clocks running.
        self._free = asyncio.Semaphore(CONNECTIONS_MAX)

    async def is_ready(self) -> bool:
        """Whether the service takes tasks."""
        try:
            return (await self._http.get("/readyz", timeout=2)).status_code == 200
        except httpx2.HTTPError:
            return False

    async def submit(self, submission: Mapping[str, Any]) -> Task:
        """Hand over one task."""
        answer = await self._call("POST", "/api/v1/tasks", body=submission)
        return msgspec.json.decode(answer.content, type=Task)

    async def submit_batch(
        self, submissions: Sequence[Mapping[str, Any]], key: str
    ) -> tuple[list[Task], bool]:
        """Hand over many at once; True with them if they were there already, sent with this key."""
        headers = {"idempotency-key": key}
        answer = await self._call("POST", "/api/v1/tasks/batch", body=submissions, headers=headers)
        tasks = msgspec.json.decode(answer.content, type=_Tasks).tasks
        return tasks, answer.headers.get("idempotent-replayed") == "true"

    async def task(self, task_id: str) -> Task:
        """The task as it is."""
        answer = await self._call("GET", f"/api/v1/tasks/{task_id}")
        return msgspec.json.decode(answer.content, type=Task)

    async def finished(self, task_id: str, within_s: float) -> Task:
        """The task once it is finished."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            answer = await self._call("GET", f"/api/v1/tasks/{task_id}?wait={WAIT_S}")
            task = msgspec.json.decode(answer.content, type=Task)
            if task.finished:
                return task
        raise DemoError(f"task {task_id} was not finished after {within_s:.0f} s")

    async def history(self, task_id: str) -> list[Event]:
        """All events of a task, oldest first."""
        answer = await self._call("GET", f"/api/v1/tasks/{task_id}/events")
        return msgspec.json.decode(answer.content, type=_History).events

    async def _call(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx2.Response:
        content = None if body is None else msgspec.json.encode(body)
        sent = {"content-type": "application/json", **(headers or {})}
        try:
            async with self._free:
                answer = await self._http.request(method, path, content=content, headers=sent)
        except httpx2.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise DemoError(f"{method} {path} got no answer: {reason}") from error
        if not answer.is_success:
            raise DemoError(f"{method} {path} was answered {answer.status_code}: {answer.text}")
        return answer


@asynccontextmanager
async def connected(url: str) -> AsyncGenerator[Client]:
    """A client of the service at `url`."""
    limits = httpx2.Limits(max_connections=CONNECTIONS_MAX)
    # A proxy of the environment is not for a service on this machine.
    async with httpx2.AsyncClient(
        base_url=url, timeout=ANSWER_TIMEOUT_S, limits=limits, trust_env=False
    ) as http:
        yield Client(http)
