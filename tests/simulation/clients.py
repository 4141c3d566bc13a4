"""Those who want something: they submit, cancel, retry and report, as the API does for its callers.

What they are told is kept: it is what must hold.
"""

import asyncio
from collections.abc import Callable
from random import Random
from typing import Final

import msgspec

from ledger.codec import Meta
from ledger.commands import CancelTask, Command, ReportProgress, RetryTask, SubmitTask
from ledger.events import Priority, TaskSubmitted
from ledger.identity import derived_id
from ledger.rejections import Rejection, RejectionCode
from ledger.store import Store
from ledger.transact import Committed, transact
from tests.given import a_submission
from tests.simulation.handlers import draw_payload
from tests.simulation.loop import Process
from tests.simulation.network import Link
from tests.simulation.plan import KB_IDS, TASK_TYPES, Plan

META: Final = Meta(actor="client")

RETRY_TRACE: Final = f"00-{'7' * 32}-{'7' * 16}-01"

TRIES_MAX: Final = 4
"""A client that hears nothing for so long gives up, and does not know."""

PRIORITIES: Final = tuple(Priority)

Known = tuple[str, TaskSubmitted]
"""A task's id, and what was sent under it."""


class Client:
    """One of several; they know each other's tasks."""

    def __init__(
        self,
        plan: Plan,
        chance: Random,
        known: list[Known],
        acknowledged: Callable[[Command, Committed], None],
    ) -> None:
        self._link: Link | None = None
        self._plan = plan
        self._chance = chance
        self._known = known
        self._acknowledged = acknowledged
        self.wishes_left = plan.wishes

    def on(self, _: Process, link: Link) -> "Client":
        """The same client, in a new process after the old one was lost."""
        self._link = link
        return self

    async def run(self) -> None:
        """Wish for one thing after the other."""
        pause_s = 0.02 if self._plan.is_crowded else self._plan.faults_s / self._plan.wishes
        while self.wishes_left:
            self.wishes_left -= 1
            await self._wish()
            await asyncio.sleep(self._chance.random() * pause_s)

    def stop(self) -> None:
        """Have no wishes any more."""
        self.wishes_left = 0

    @property
    def _store(self) -> Store:
        assert self._link is not None
        return self._link.store

    async def _wish(self) -> None:
        chance = self._chance
        drawn = chance.random()
        if self._plan.is_crowded or not self._known or drawn < 0.5:
            await self._submit_new()
            return
        task_id, submission = self._known[int(chance.random() * len(self._known))]
        if drawn < 0.58:
            await self._submit_again(task_id, submission)
        elif drawn < 0.76:
            await self._send(task_id, CancelTask())
        elif drawn < 0.92:
            await self._send(task_id, RetryTask(RETRY_TRACE if drawn < 0.84 else ""))
        else:
            await self._send(task_id, ReportProgress(int(chance.random() * 100), "from outside"))

    async def _submit_new(self) -> None:
        chance, plan = self._chance, self._plan
        key = f"{chance.getrandbits(64):x}"
        has_key = chance.random() < 0.6
        kb_id = KB_IDS[int(chance.random() * len(KB_IDS))]
        is_due_later = not plan.is_crowded and chance.random() < 0.15
        submission = a_submission(
            task_type=TASK_TYPES[int(chance.random() * len(TASK_TYPES))],
            kb_id=kb_id,
            payload=draw_payload(chance, is_quick=plan.is_crowded),
            priority=PRIORITIES[int(chance.random() ** (3 if plan.is_crowded else 1) * 4)],
            max_retries=int(chance.random() * 3),
            timeout_s=1 + int(chance.random() * 3),
            schedule_for=(
                self._store.now_ms() + int(chance.random() * 2_000) if is_due_later else None
            ),
            body_sha256=key if has_key else "",
            trace=f"00-{key:0>32}-{key:0>16}-01" if has_key or is_due_later else "",
        )
        # Without a key an id is new at every try, as those that the API makes.
        ids = [derived_id(kb_id, key if has_key else f"{key}-{n}") for n in range(TRIES_MAX)]
        self._known.append((ids[0], submission))
        for task_id in ids:
            if await self._try(task_id, SubmitTask(submission)):
                return

    async def _submit_again(self, task_id: str, submission: TaskSubmitted) -> None:
        if not submission.body_sha256:
            return
        if self._chance.random() < 0.7:
            await self._send(task_id, SubmitTask(submission))
            return
        other = msgspec.structs.replace(submission, body_sha256="another body")
        try:
            await transact(self._store, task_id, SubmitTask(other), meta=META)
        except Rejection as rejection:
            if not rejection.retryable and rejection.code is not RejectionCode.IDEMPOTENCY_CONFLICT:
                raise
        else:
            # Its first submission may never have arrived: then the key is this one's.
            self._known[:] = [
                (known, other if known == task_id else kept) for known, kept in self._known
            ]

    async def _send(self, task_id: str, command: Command) -> None:
        for _ in range(TRIES_MAX):
            if await self._try(task_id, command):
                return

    async def _try(self, task_id: str, command: Command) -> bool:
        """Whether that was it: done, or refused for good."""
        # As the API does: only submissions are refused by a full queue.
        queue_max = self._plan.queue_max if isinstance(command, SubmitTask) else 0
        try:
            committed = await transact(
                self._store,
                task_id,
                command,
                meta=META,
                queue_max=queue_max,
                tell_queue_position=self._chance.random() < 0.2,
            )
        except Rejection as rejection:
            if not rejection.retryable:
                return True
            await asyncio.sleep(self._chance.random() * 0.3)
            return False
        self._acknowledged(command, committed)
        return True
