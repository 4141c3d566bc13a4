"""The callers of a run, and their log of what was acknowledged: the oracle's other half."""

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any

import httpx2
import msgspec

from ledger.events import Priority
from tests.faults.campaign.evidence import Sent
from tests.faults.campaign.plan import Plan

CLIENTS = 8
PAUSE_S = 0.1
"""A client's pause before it tries again."""

CALL_TIMEOUT_S = 4.0
TASKS = "/api/v1/tasks"


CANCELED = {7: 0.0, 14: 1.0}
"""Which tasks are canceled, by their number of twenty, and how many s after their submission: at
once, or while they run."""


TIMED_OUT = {25, 42}
"""Those of sixty that take longer than they may."""

IN_PROCESSES = {34, 42, 54}
"""Those of sixty that are canceled or come to their time limit in a process; there are others."""


class Patient:
    """Sends a request until the service takes it."""

    def __init__(self) -> None:
        self.refused = 0
        """Answers of 503, and calls without an answer."""

    async def until(
        self, http: httpx2.AsyncClient, method: str, path: str, **sent: Any
    ) -> httpx2.Response:
        """The answer, sent again and again until it is no 503."""
        while True:
            with contextlib.suppress(httpx2.TransportError):
                answer = await http.request(method, path, **sent)
                if answer.status_code != 503:
                    return answer
                assert answer.headers["retry-after"], "a 503 says when to come back"
            self.refused += 1
            await asyncio.sleep(PAUSE_S)


class Clients:
    """Submit a plan's tasks through the API, each until it is acknowledged, over the plan's time;
    cancel some. What was acknowledged is written down at once."""

    def __init__(self, plan: Plan, url: str, log: Path) -> None:
        self.acknowledged: dict[str, float] = {}
        self.sent: dict[str, Sent] = {}
        self.canceled: dict[str, float] = {}
        self._patient = Patient()
        self._begun = 0
        self._plan = plan
        self._url = url
        self._log = log

    @property
    def seconds_worth(self) -> float:
        """How far they are in the plan's time."""
        return self._plan.seconds * self._begun / self._plan.tasks

    @property
    def refused(self) -> int:
        """Answers of 503, and calls without an answer."""
        return self._patient.refused

    async def run(self) -> None:
        """Return when every task is acknowledged."""
        numbers = iter(range(self._plan.tasks))
        began = time.monotonic()
        with self._log.open("a") as log:
            async with asyncio.TaskGroup() as group:
                for _ in range(CLIENTS):
                    group.create_task(self._client(numbers, began, log))

    async def _client(self, numbers: Any, began: float, log: Any) -> None:
        async with httpx2.AsyncClient(base_url=self._url, timeout=CALL_TIMEOUT_S) as http:
            for i in numbers:
                self._begun = i + 1
                early_s = began + i * self._plan.seconds / self._plan.tasks - time.monotonic()
                await asyncio.sleep(max(0.0, early_s))
                body = _body(i)
                headers = {"Idempotency-Key": f"task {i}", "Content-Type": "application/json"}
                answer = await self._patient.until(
                    http, "POST", TASKS, content=msgspec.json.encode(body), headers=headers
                )
                assert answer.status_code in (200, 201), answer.text
                task_id = answer.json()["id"]
                self.sent[task_id] = _sent(body)
                self._note(log, "acknowledged", task_id, self.acknowledged)
                if i % 20 in CANCELED:
                    await asyncio.sleep(CANCELED[i % 20])
                    answer = await self._patient.until(http, "DELETE", f"{TASKS}/{task_id}")
                    if answer.status_code == 200:
                        self._note(log, "canceled", task_id, self.canceled)

    def _note(self, log: Any, what: str, task_id: str, noted: dict[str, float]) -> None:
        noted[task_id] = time.monotonic()
        log.write(msgspec.json.encode([what, task_id, noted[task_id]]).decode() + "\n")
        log.flush()


def _body(i: int) -> dict[str, Any]:
    """Tasks of every kind: quick ones, long ones, some that fail, some for later."""
    body: dict[str, Any] = {
        "task_type": _task_type(i),
        "kb_id": f"kb-{i % 7}",
        "payload": {"i": i, "ticks": _ticks(i), "fails": _fails(i)},
        "priority": ("normal", "high", "low", "critical")[i % 4],
        "max_retries": 50,
    }
    if i % 60 in TIMED_OUT:
        body |= {"timeout": 1, "max_retries": 1}
    if i % 20 == 11:
        due = time.time() + 2
        body["schedule_for"] = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(due))}Z"
    return body


def _sent(body: dict[str, Any]) -> Sent:
    payload = msgspec.json.encode(body["payload"])
    return Sent(body["kb_id"], body["task_type"], Priority(body["priority"]), payload)


def _task_type(i: int) -> str:
    if i % 60 in IN_PROCESSES or i % 20 == 3:
        return "document_processing"
    return "vector_storage" if i % 5 == 4 and i % 20 not in CANCELED else "embedding_generation"


def _ticks(i: int) -> int:
    if i % 30 == 0 or i % 60 in TIMED_OUT or i % 20 == 14:
        return 45
    return 2 if i % 3 == 0 else 0


def _fails(i: int) -> int:
    if i % 50 == 8:
        return -1
    return 1 if i % 10 == 6 else 0
