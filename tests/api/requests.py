"""What the tests send, and how they bring a task into the state that a test is about."""

import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

import httpx2
import msgspec

from ledger.commands import Command, CompleteTask, FailAttempt, StartTask
from ledger.events import ErrorKind
from ledger.redis_connection import send
from ledger.redis_store import RedisStore
from ledger.transact import Committed, transact

TASKS: Final = "/api/v1/tasks"
BATCH: Final = "/api/v1/tasks/batch"
JSON: Final = {"content-type": "application/json"}
UNKNOWN_ID: Final = "01996abc-2400-7000-8000-0000000000a7"


def body(**fields: Any) -> dict[str, Any]:
    """A submission in which only what a test is about has to be named."""
    return {"task_type": "document_processing", "kb_id": "kb-1", "payload": {"a": 1}, **fields}


def raw_body(field: str, value: bytes | None) -> bytes:
    """A submission with `value` as the very bytes of `field`; None leaves the field out."""
    fields = {name: json.dumps(given).encode() for name, given in body().items()}
    fields.pop(field, None)
    if value is not None:
        fields[field] = value
    return b"{" + b",".join(b'"%s":%s' % (n.encode(), v) for n, v in fields.items()) + b"}"


async def post_raw(
    api: httpx2.AsyncClient, path: str, content: bytes, **headers: str
) -> httpx2.Response:
    """POST bytes as JSON."""
    return await api.post(path, content=content, headers={**JSON, **headers})


async def submitted(api: httpx2.AsyncClient, **fields: Any) -> dict[str, Any]:
    """A task that was just submitted."""
    answer = await api.post(TASKS, json=body(**fields))
    assert answer.status_code == 201, answer.text
    return answer.json()


Step = Callable[[RedisStore, str], Awaitable[Committed]]
"""What a worker does to a task."""


async def do(store: RedisStore, task_id: str, command: Command) -> Committed:
    """Carry a worker's command out."""
    return await transact(store, task_id, command)


async def start(store: RedisStore, task_id: str, attempt: int = 1) -> Committed:
    return await do(store, task_id, StartTask(attempt, "worker-1", 60_000))


async def complete(store: RedisStore, task_id: str, result: bytes = b'{"chunks": 12}') -> Committed:
    """Start the task, and end it well."""
    await start(store, task_id)
    return await do(store, task_id, CompleteTask(1, msgspec.Raw(result)))


async def fail(store: RedisStore, task_id: str, message: str = "no such file") -> Committed:
    """Start the task, and end it for good."""
    await start(store, task_id)
    return await do(store, task_id, FailAttempt(1, message, ErrorKind.PERMANENT))


async def state_of(store: RedisStore) -> tuple[str, int]:
    """The end of the ledger and the number of keys: equal before and after, nothing was written."""
    return str(await store.last_position(0)), await send(store.client, ("DBSIZE",))
