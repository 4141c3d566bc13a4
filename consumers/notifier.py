"""Tells callback_urls of the ends of tasks: takes what is due, posts it, keeps what came of it.

What is due stands in the ledger, put there in the same step as the end itself; it is handed out for
as long as a post may take, so several notifiers share the work, and of one that is killed others
take it up. A host has no more than its share of the posts at once, and the hosts of which least is
under way come first: one that does not answer holds up nobody but itself.
"""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec
import structlog

from consumers.meters import Meter
from consumers.posting import Answer, Lookup, Poster
from consumers.service import Outage, Service, backoff_s
from consumers.signatures import Signer
from ledger import __version__
from ledger.allow_list import AllowList
from ledger.callbacks import host_of, message_id, url_of
from ledger.codec import Meta, Undecodable, encode
from ledger.commands import DeliverCallback, FailCallback
from ledger.moments import moment_text
from ledger.placement import Callback, placement
from ledger.redis_calls import ForeignKey
from ledger.rejections import Rejection
from ledger.retry_policy import DEFAULT_CALLBACK_POLICY, DEFAULT_CALLBACKS_LAST_MS, RetryPolicy
from ledger.store import DueCallback, Store
from ledger.task import Task
from ledger.transact import transact

log = structlog.get_logger("notifier")

META: Final = Meta(actor="notifier")

LOOK_S: Final = 5.0
"""Longest that nobody looks for what is due: a bell may be heard by one that is killed then."""

BELL_WAIT_MS: Final = 60_000
"""The store makes less of it."""

UNSERVABLE_KEPT_MAX: Final = 1_000
NO_RESULT: Final = msgspec.Raw(b"null")


class NotifierOptions(msgspec.Struct, frozen=True):
    """Bounds of one notifier. Times in ms."""

    concurrency: int = 128
    host_concurrency: int = 8
    timeout_ms: int = 15_000
    """Of one post, with everything that belongs to it."""
    lease_ms: int = 25_000
    """Nobody else is given a callback for so long: the post, and writing down what came of it."""
    settle_ms: int = 0
    """How long an end is left alone, so that it is on disk before others hear of it."""
    policy: RetryPolicy = DEFAULT_CALLBACK_POLICY
    lasts_ms: int = DEFAULT_CALLBACKS_LAST_MS


class Message(msgspec.Struct, frozen=True):
    """What is posted."""

    # The fields stand in the contract's order.
    task_id: str
    status: str
    result: msgspec.Raw
    error_message: str
    completed_at: str
    kb_id: str
    task_type: str


class Notifier:
    """A role: `run` until `stop`."""

    def __init__(
        self,
        store: Store,
        signer: Signer,
        allowed: AllowList,
        options: NotifierOptions,
        *,
        meter: Meter | None = None,
        lookup: Lookup | None = None,
    ) -> None:
        self._store = store
        self._signer = signer
        self._allowed = allowed
        self._options = options
        self._meter = meter or Meter()
        self._lookup = lookup
        self._outage = Outage("notifier")
        self._in_hand: Counter[str] = Counter()
        self._taking = asyncio.Lock()
        self._room = asyncio.Event()
        self._wakes = [asyncio.Event() for _ in range(store.partitions)]
        self._unservable: set[str] = set()
        self._stopping = asyncio.Event()
        partitions = range(store.partitions)
        self._takers = [self._service(f"take {p}", lambda p=p: self._take(p)) for p in partitions]
        self._listeners = [
            self._service(f"listen {p}", lambda p=p: self._listen(p)) for p in partitions
        ]

    async def run(self) -> None:
        """Work until `stop`; posts that are under way then come to their ends first."""
        self._poster = Poster(
            self._allowed, timeout_s=self._options.timeout_ms / 1000, lookup=self._lookup
        )
        try:
            async with asyncio.TaskGroup() as self._group:
                listening = [self._group.create_task(one.run()) for one in self._listeners]
                takers = [asyncio.create_task(one.run()) for one in self._takers]
                try:
                    await asyncio.gather(*takers)
                finally:
                    for task in (*takers, *listening):
                        task.cancel()
                    await asyncio.gather(*takers, return_exceptions=True)
        finally:
            await self._poster.close()

    def stop(self) -> None:
        """Take nothing any more."""
        self._stopping.set()
        for service in (*self._takers, *self._listeners):
            service.stop()
        self._room.set()
        self._wake_all()

    # -- taking -------------------------------------------------------------------------------

    async def _take(self, partition: int) -> float:
        """Begin posts of what is due, as far as there is room; return when more may be."""
        wake, options = self._wakes[partition], self._options
        wake.clear()
        async with self._taking:
            room = options.concurrency - self._in_hand.total()
            next_in_s = LOOK_S
            if room > 0:
                found = await self._store.take_callbacks(
                    partition,
                    room,
                    host_max=options.host_concurrency,
                    in_hand=self._in_hand,
                    lease_ms=options.lease_ms,
                    settle_ms=options.settle_ms,
                )
                for due in found.callbacks:
                    self._in_hand[due.host] += 1
                    self._group.create_task(self._tell(partition, due))
                if found.next_in_ms is not None:
                    next_in_s = min(LOOK_S, (found.next_in_ms + 1) / 1000)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(next_in_s):
                await wake.wait()
        return 0.0

    async def _listen(self, partition: int) -> float:
        """Hear of what becomes due; not while there is no room for it, when others had better."""
        if self._in_hand.total() >= self._options.concurrency:
            self._room.clear()
            await self._room.wait()
        elif await self._store.callbacks_due(partition, BELL_WAIT_MS):
            self._wakes[partition].set()
        return 0.0

    def _done_with(self, partition: int, host: str) -> None:
        had_no_room = (
            self._in_hand.total() >= self._options.concurrency
            or self._in_hand[host] >= self._options.host_concurrency
        )
        self._in_hand[host] -= 1
        if not self._in_hand[host]:
            del self._in_hand[host]
        self._room.set()
        # What had no room may be in any partition; else it is time to look when this one is due.
        if had_no_room:
            self._wake_all()
        else:
            self._wakes[partition].set()

    def _wake_all(self) -> None:
        for wake in self._wakes:
            wake.set()

    def _service(self, name: str, step: Callable[[], Awaitable[float]]) -> Service:
        return Service(name, step, outage=self._outage)

    # -- telling ------------------------------------------------------------------------------

    async def _tell(self, partition: int, due: DueCallback) -> None:
        try:
            await self._serve(due.task_id)
        except (Undecodable, ForeignKey) as error:
            self._cannot_serve(due.task_id, str(error))
        except Rejection as rejection:
            if rejection.retryable:
                # Somebody takes it again when it is due: at least once.
                log.warning("callback_left", task_id=due.task_id, reason=rejection.message)
            else:
                self._cannot_serve(due.task_id, rejection.message)
        finally:
            self._done_with(partition, due.host)

    async def _serve(self, task_id: str) -> None:
        task = await self._store.load(task_id)
        if task is None:
            return self._cannot_serve(task_id, "there is no such task")
        url = url_of(task)
        if url is None or not isinstance(placement(task), Callback):
            return None  # it moved on since
        body, headers = self._message(task)
        host, ending, attempt = host_of(url), task.ending, task.state.callback_attempts + 1
        del task  # it may be large, and the other side slow
        began_s = asyncio.get_running_loop().time()
        answer = await self._poster.post(url, body, headers)
        seconds = asyncio.get_running_loop().time() - began_s
        if answer.is_taken:
            await self._keep(task_id, DeliverCallback(ending, host, answer.status_code or 0))
        else:
            await self._keep(task_id, self._failure(answer, host, ending, attempt))
        self._meter.callback(delivered=answer.is_taken, seconds=seconds)
        return None

    def _message(self, task: Task) -> tuple[bytes, Mapping[str, str]]:
        state = task.state
        ended_at = state.updated_at if state.completed_at is None else state.completed_at
        message = Message(
            task.id,
            task.status,
            state.result if len(state.result) else NO_RESULT,
            state.error_message,
            moment_text(ended_at),
            task.submission.kb_id,
            task.submission.task_type,
        )
        # A result is whatever a worker handed over; what is signed has to be text.
        body = encode(message).decode(errors="replace").encode()
        signed = self._signer.headers(message_id(task), datetime.now(UTC), body)
        user_agent = f"ledgerq/{__version__}"
        headers = {**signed, "content-type": "application/json", "user-agent": user_agent}
        if task.trace:
            headers["traceparent"] = task.trace
        return body, headers

    def _failure(self, answer: Answer, host: str, ending: int, attempt: int) -> FailCallback:
        return FailCallback(
            ending,
            attempt,
            host,
            answer.error,
            answer.status_code,
            is_final=answer.is_final,
            retry_after_ms=answer.retry_after_ms,
            jitter=random.random(),  # noqa: S311 - spreads retries
            policy=self._options.policy,
            lasts_ms=self._options.lasts_ms,
        )

    async def _keep(self, task_id: str, command: DeliverCallback | FailCallback) -> None:
        """Write down what came of a post: while the ledger is out of reach, again and again for as
        long as a lease lasts. Raises Rejection."""
        loop = asyncio.get_running_loop()
        give_up_at, failures = loop.time() + self._options.lease_ms / 1000, 0
        while True:
            try:
                await transact(self._store, task_id, command, meta=META)
                return
            except Rejection as rejection:
                if not rejection.retryable or loop.time() > give_up_at or self._stopping.is_set():
                    raise
            failures += 1
            await asyncio.sleep(backoff_s(failures))

    def _cannot_serve(self, task_id: str, reason: str) -> None:
        """It comes up again and again, and is told once."""
        if task_id in self._unservable:
            return
        if len(self._unservable) >= UNSERVABLE_KEPT_MAX:
            self._unservable.clear()
        self._unservable.add(task_id)
        log.error("callback_unservable", task_id=task_id, reason=reason)
