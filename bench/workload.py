"""The work that every bench gives: no-op tasks with a payload of 214 bytes."""

import asyncio
import itertools
import json
import time
from typing import Final

import msgspec
from uuid_utils import uuid7

from ledger.commands import SubmitTask
from ledger.events import TaskSubmitted
from ledger.store import Store
from ledger.transact import transact

TASK_TYPE: Final = "embedding_generation"
SLOW_TYPES: Final = ("document_processing", "knowledge_indexing")
KB_ID: Final = "bench"
PAYLOAD_BYTES: Final = 214


def _payload() -> bytes:
    fields: dict[str, object] = {
        "document_id": "0190b6f2-6f0e-7cc3-98c4-dc0c0c07398f",
        "source": "s3://knowledge/incoming/quarterly-report.pdf",
        "chunk_size": 1_000,
        "chunk_overlap": 200,
        "text": "",
    }
    fields["text"] = "x" * (PAYLOAD_BYTES - len(_json(fields)))
    return _json(fields)


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


PAYLOAD: Final = _payload()


def new_id() -> str:
    return str(uuid7())


def new_submission(payload: bytes = PAYLOAD, kb_id: str = KB_ID) -> TaskSubmitted:
    return TaskSubmitted(TASK_TYPE, kb_id, msgspec.Raw(payload))


def request_body(payload: bytes = PAYLOAD) -> bytes:
    """The same submission as a REST request's body."""
    head = b'{"task_type":"%s","kb_id":"%s",' % (TASK_TYPE.encode(), KB_ID.encode())
    return head + b'"payload":%s}' % payload


def stamped_payload() -> bytes:
    """A payload that carries when it was made, for a handler of the same machine to compare."""
    return b'{"sent_ns":%d}' % time.monotonic_ns()


async def submit(store: Store, count: int, callers: int) -> tuple[float, float]:
    """Submit `count` tasks; when that began and ended, in s of the machine's monotonic clock."""
    numbers = itertools.repeat(None, count)

    async def call() -> None:
        for _ in numbers:
            await transact(store, new_id(), SubmitTask(new_submission()))

    began = time.monotonic()
    await asyncio.gather(*(call() for _ in range(callers)))
    return began, time.monotonic()
