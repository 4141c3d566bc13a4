"""Brings tasks into being, however their submissions came in: the one core of REST, gRPC and
uploads."""

import asyncio
import contextlib
import functools
import hashlib
from collections import Counter
from collections.abc import Generator, Sequence
from typing import Final

import msgspec
import uuid_utils

from api.errors import ApiError, of_rejection
from api.overload import MemoryGuard
from api.shared_answer import SharedAnswer
from ledger.codec import Meta
from ledger.commands import SubmitTask
from ledger.events import Priority, TaskSubmitted
from ledger.identity import derived_id
from ledger.rejections import Rejection, RejectionCode
from ledger.settings import Settings
from ledger.store import Store, Waiting
from ledger.transact import Committed, queue_full, transact

BATCHES_MAX: Final = 8
"""Batches in work at once in one process: more would fill the line that single writes wait in."""

BATCH_WAVE: Final = 128
"""Items of a batch that are submitted together; between waves, others get their turn."""

ROOM_FRESH_S: Final = 0.25
"""That a queue has room is believed for so long by those who only want to refuse early: whether it
has is for the append to say."""


class Submissions:
    """Takes what `api.intake` has checked. One of them in a process, since it keeps the bounds."""

    def __init__(self, store: Store, settings: Settings, memory: MemoryGuard) -> None:
        self._store = store
        self._queue_max = settings.queue_tasks_max
        self._memory = memory
        self._batches = 0
        self._waiting: dict[str, SharedAnswer[Waiting]] = {
            task_type: SharedAnswer(functools.partial(store.waiting, task_type), ROOM_FRESH_S)
            for task_type in settings.known_task_types
        }
        """How many tasks of a type wait."""

    async def close(self) -> None:
        """End what runs beside the requests."""
        for waiting in self._waiting.values():
            await waiting.close()

    async def submit(
        self, task_id: str, submission: TaskSubmitted, body_bytes: int, meta: Meta
    ) -> Committed:
        """One task; `body_bytes` is about what it will take. No events: the key made it before.

        Raises Rejection, and ApiError (IDEMPOTENCY_CONFLICT).
        """
        await self._memory.check(1, body_bytes)
        return await self._submit(task_id, submission, meta)

    async def refuse_early(self, task_type: str = "", priority: Priority = Priority.NORMAL) -> None:
        """Raises Rejection where a submission would be refused now, for want of memory or, when its
        type is known, of room in its queue: before a caller sends much."""
        await self._memory.check(0, 0)
        if task_type and await self._is_full(task_type, priority):
            raise queue_full(task_type, priority, self._queue_max)

    async def _is_full(self, task_type: str, priority: Priority) -> bool:
        waiting = await self._waiting[task_type].get()
        if min(waiting[priority]) < self._queue_max:
            return False
        # Bad news is not believed for longer than it is true.
        waiting = await self._store.waiting(task_type)
        return min(waiting[priority]) >= self._queue_max

    @contextlib.contextmanager
    def place_for_batch(self) -> Generator[None]:
        """Within it a batch may be read and submitted. Raises Rejection when others have taken all
        places."""
        if self._batches >= BATCHES_MAX:
            raise Rejection(
                RejectionCode.SERVICE_UNAVAILABLE,
                f"{BATCHES_MAX} batches are in work already; try again",
            )
        self._batches += 1
        try:
            yield
        finally:
            self._batches -= 1

    async def submit_batch(
        self, key: str | None, submissions: Sequence[TaskSubmitted], body_bytes: int, meta: Meta
    ) -> list[Committed]:
        """Many tasks, in their order. With a key that was used with another body, none.

        Raises as `submit`; when one cannot be written, those after its wave are not tried, and the
        error lists what exists.
        """
        if key is None:
            ids = [str(uuid_utils.uuid7()) for _ in submissions]
        else:
            ids = _derived_ids(key, submissions)
            await self._refuse_clash(ids, submissions)
        await self._memory.check(len(submissions), body_bytes)
        return await self._submit_all(ids, submissions, meta)

    async def _submit(self, task_id: str, submission: TaskSubmitted, meta: Meta) -> Committed:
        if meta.trace:
            submission = msgspec.structs.replace(submission, trace=meta.trace)
        try:
            return await transact(
                self._store,
                task_id,
                SubmitTask(submission),
                meta=meta,
                known=None,
                queue_max=self._queue_max,
                tell_queue_position=True,
            )
        except Rejection as rejection:
            if rejection.code is RejectionCode.IDEMPOTENCY_CONFLICT:
                raise of_rejection(rejection, {"task_id": task_id}) from None
            raise

    async def _refuse_clash(self, ids: Sequence[str], submissions: Sequence[TaskSubmitted]) -> None:
        """A key that was used with another body must create nothing, not even what is new in it."""
        for start in range(0, len(ids), BATCH_WAVE):
            wave = slice(start, start + BATCH_WAVE)
            known = await asyncio.gather(*map(self._store.load, ids[wave]))
            for task, submission in zip(known, submissions[wave], strict=True):
                if task is not None and task.submission.body_sha256 != submission.body_sha256:
                    raise ApiError(
                        RejectionCode.IDEMPOTENCY_CONFLICT,
                        "this Idempotency-Key was used for another batch; send a new key, or the "
                        "same body",
                        {"task_id": task.id},
                    )

    async def _submit_all(
        self, ids: Sequence[str], submissions: Sequence[TaskSubmitted], meta: Meta
    ) -> list[Committed]:
        """Every submission of a batch. When one cannot be written, those after its wave are not
        tried, and the error lists what exists."""
        committed: list[Committed] = []
        for start in range(0, len(ids), BATCH_WAVE):
            wave = slice(start, start + BATCH_WAVE)
            outcomes = await asyncio.gather(
                *(
                    self._submit(i, s, meta)
                    for i, s in zip(ids[wave], submissions[wave], strict=True)
                ),
                return_exceptions=True,
            )
            committed += (o for o in outcomes if isinstance(o, Committed))
            faults = [o for o in outcomes if isinstance(o, BaseException)]
            if faults:
                raise cut_off(faults[0], committed, len(ids))
        return committed


def id_for(key: str | None, kb_id: str) -> str:
    """The id of a new task: derived from its key, if it has one."""
    return str(uuid_utils.uuid7()) if key is None else derived_id(kb_id, key)


def digest_for(key: str | None, body: bytes) -> str:
    """What tells a repeated submission under a key from another one; empty without a key."""
    return "" if key is None else hashlib.sha256(body).hexdigest()


def _derived_ids(key: str, submissions: Sequence[TaskSubmitted]) -> list[str]:
    """The ids that a key gives a batch. Counted within each kb_id, as a key is: wherever the first
    item of a kb_id stands, it meets itself again."""
    seen: Counter[str] = Counter()
    ids: list[str] = []
    for submission in submissions:
        ids.append(derived_id(submission.kb_id, key, seen[submission.kb_id]))
        seen[submission.kb_id] += 1
    return ids


def cut_off(fault: BaseException, committed: Sequence[Committed], count: int) -> BaseException:
    """The error of a batch that was written in part."""
    if not isinstance(fault, Rejection | ApiError):
        return fault
    exists = [done.task.id for done in committed]
    details = {"created": len(exists), "submitted": count, "task_ids": exists}
    return of_rejection(fault, details)
