"""POST /api/v1/dead-letters/retry: send failed tasks round again, many at once."""

import asyncio
import time
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from api.bodies import BodyReader
from api.commands import last_positions
from api.dead_letters import failure_filters
from api.describe import (
    LEDGER_POSITION_IF_WRITTEN,
    LEDGER_POSITION_WANTED,
    PROJECTION_LAG,
    WRITER_HEADERS,
    Answer,
    Group,
    operation,
)
from api.errors import ApiError, of_rejection
from api.exchange import Exchange
from api.overload import MemoryGuard
from api.read_model import POSITION_HEADER, ReadModel
from api.scalars import AGE_EXPECTED, Count, Fingerprint, KbId, Moment, TaskTypeName, TimeOrAge
from api.task_list import VALUES_MAX
from api.wire import moment_text
from ledger.codec import Meta as EventMeta
from ledger.codec import encode
from ledger.commands import RetryTask
from ledger.events import ErrorKind
from ledger.rejections import Rejection, RejectionCode
from ledger.settings import Settings
from ledger.store import Store
from ledger.transact import Committed, transact
from projections.dead_letters import (
    Failed,
    FailedTasks,
    FailureFilters,
    Further,
    further_failed_tasks,
)
from projections.readers import Unavailable

BODY_BYTES_MAX: Final = 256 * 1024
LIMIT_MAX: Final = 10_000
LIMIT_DEFAULT: Final = 1_000

SECONDS_MAX: Final = 10.0
"""No further tasks are begun with after so long; the answer says how many remain."""

CANDIDATES: Final = 1_000
"""Tasks that are read together, when those of full queues are passed over."""

WAVE: Final = 128
"""Tasks that are retried together; between waves, others get their turn."""

RUNNING_MAX: Final = 2
"""Bulk retries at once in one process: more would fill the line that single writes wait in."""

Value = TypeVar("Value")
OneOrSeveral = Value | Annotated[tuple[Value, ...], Meta(min_length=1, max_length=VALUES_MAX)]


class SkipReason(StrEnum):
    """Why a task was not sent round again."""

    MOVED_ON = "moved_on"
    """It was retried, or has failed anew, since the read model saw it fail."""
    GONE = "gone"
    """The ledger does not have it any more."""
    QUEUE_FULL = "queue_full"
    """Its queue has no room, so it stays failed, and remains; later ones of others go on."""


_SKIPPED: Final = {
    RejectionCode.VERSION_CONFLICT: SkipReason.MOVED_ON,
    RejectionCode.TASK_NOT_RETRYABLE: SkipReason.MOVED_ON,
    RejectionCode.TASK_NOT_FOUND: SkipReason.GONE,
    RejectionCode.QUEUE_FULL: SkipReason.QUEUE_FULL,
}


class BulkRetryBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which failed tasks are to be retried: one value or several of each, all of them without
    any; and how many."""

    kb_id: OneOrSeveral[KbId] | UnsetType = UNSET
    task_type: OneOrSeveral[TaskTypeName] | UnsetType = UNSET
    error_kind: OneOrSeveral[ErrorKind] | UnsetType = UNSET
    fingerprint: OneOrSeveral[Fingerprint] | UnsetType = UNSET
    created_after: TimeOrAge | UnsetType = UNSET
    created_before: TimeOrAge | UnsetType = UNSET
    failed_after: TimeOrAge | UnsetType = UNSET
    failed_before: TimeOrAge | UnsetType = UNSET
    dry_run: Annotated[bool, Meta(description="Only say what would be retried.")] = False
    limit: Annotated[
        int, Meta(ge=1, le=LIMIT_MAX, description="At most so many, those first that failed first.")
    ] = LIMIT_DEFAULT


class BulkRetried(msgspec.Struct, frozen=True):
    """What became of the tasks that match."""

    retried: Annotated[Count, Meta(description="Sent round again; in a dry run, what would be.")]
    skipped: Annotated[dict[SkipReason, Count], Meta(description="Left as they are, by reason.")]
    remaining: Annotated[
        Count, Meta(description="That match and are failed still; the same request goes on.")
    ]
    dry_run: bool
    fingerprints: Annotated[
        dict[Fingerprint, Count], Meta(description="Of those that were retried.")
    ]
    as_of: Annotated[
        Moment,
        Meta(
            description="Nothing that failed at this time or later was touched. As `failed_before` "
            "of the next request, it leaves out what has failed anew since."
        ),
    ]


class BulkRetries:
    """The endpoint; takes an Exchange and answers it, or raises."""

    def __init__(
        self, store: Store, read_model: ReadModel, settings: Settings, memory: MemoryGuard
    ) -> None:
        self._store = store
        self._read_model = read_model
        self._task_types = settings.known_task_types
        self._queue_max = settings.queue_tasks_max
        self._memory = memory
        self._bodies = BodyReader(BulkRetryBody, _expected(settings))
        self._running = 0

    @operation(
        "retryDeadLetters",
        Group.TASKS,
        {
            200: Answer(
                "What was retried, and what remains.",
                BulkRetried,
                (LEDGER_POSITION_IF_WRITTEN, PROJECTION_LAG),
            )
        },
        body=BulkRetryBody,
        headers=(LEDGER_POSITION_WANTED, *WRITER_HEADERS),
        refusals=(RejectionCode.QUEUE_FULL,),
    )
    async def retry(self, exchange: Exchange) -> None:
        """Retry failed tasks in bulk.

        Each is queued again as by `POST /api/v1/tasks/{id}/retry`, those first that failed first. A
        task that moved on meanwhile is skipped, so that the request can be sent again after it was
        cut off. Once a queue has no room, further tasks of it are passed over, and those of others
        go on. It ends within about ten seconds, and says how many remain. With no memory left for
        more it is `QUEUE_FULL`, and `details` say what was done before.

        A request that finds nothing to retry is answered with zeros.
        """
        exchange.parameters()
        asked = self._bodies.read(await exchange.json_body(BODY_BYTES_MAX))
        # Of this ms too, but of nothing that fails while the request runs.
        as_of = self._store.now_ms() + 1
        filters = failure_filters(
            _several(asked),
            as_of - 1,
            self._bodies.wrong,
            self._task_types,
        )
        as_of = as_of if filters.failed_before is None else min(as_of, filters.failed_before)
        filters = msgspec.structs.replace(filters, failed_before=as_of)
        found, headers = await self._read_model.ask(
            exchange, lambda models, wanted: models.failed_tasks(filters, asked.limit, wanted)
        )
        run = _Run(found, as_of, asked.dry_run)
        candidates = _Candidates(self._store, self._read_model, filters, found.tasks)
        if asked.dry_run:
            run.retried.update(failed.fingerprint for failed in found.tasks)
        else:
            await self._carry_out(run, candidates, asked.limit, exchange.meta())
        # The answer tells the position of the writes, not how far the read model had come.
        headers = [header for header in headers if header[0] != POSITION_HEADER]
        if run.committed:
            headers += last_positions(run.committed)
        await exchange.respond(200, encode(run.view()), headers)

    async def _carry_out(
        self, run: "_Run", candidates: "_Candidates", limit: int, meta: EventMeta
    ) -> None:
        if not candidates.tasks:
            return  # nothing to do is done, however busy the service is
        if self._running >= RUNNING_MAX:
            raise Rejection(
                RejectionCode.SERVICE_UNAVAILABLE,
                f"{RUNNING_MAX} bulk retries are in work already; try again",
            )
        self._running += 1
        try:
            deadline_s = time.monotonic() + SECONDS_MAX
            while (room := limit - run.retried.total()) > 0:
                tasks = candidates.take(min(room, WAVE), run)
                await self._wave(run, candidates, tasks, meta)
                if time.monotonic() >= deadline_s:
                    return
                if not candidates.tasks and not await self._read_on(candidates, run):
                    return
        finally:
            self._running -= 1

    async def _read_on(self, candidates: "_Candidates", run: "_Run") -> bool:
        """Whether there are more to try. Raises when that cannot be read; what was done is told."""
        try:
            return await candidates.read_on()
        except Unavailable as error:
            fault = ApiError(RejectionCode.SERVICE_UNAVAILABLE, str(error))
            raise _cut_off(fault, run) from error

    async def _wave(
        self, run: "_Run", candidates: "_Candidates", tasks: Sequence[Failed], meta: EventMeta
    ) -> None:
        """Retry some at once. Raises when the ledger takes no writes, or has no memory for more;
        what was done is told."""
        try:
            await self._memory.check(len(tasks), 0)
        except Rejection as refusal:
            raise _cut_off(refusal, run) from refusal
        outcomes = await asyncio.gather(
            *(self._retry_one(failed, meta) for failed in tasks), return_exceptions=True
        )
        faults: list[BaseException] = []
        for failed, outcome in zip(tasks, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                faults.append(outcome)
            else:
                run.take(failed, outcome)
                if outcome is SkipReason.QUEUE_FULL:
                    candidates.leave_queue_of(failed)
        if faults:
            raise _cut_off(faults[0], run)

    async def _retry_one(self, failed: Failed, meta: EventMeta) -> Committed | SkipReason:
        try:
            return await transact(
                self._store,
                failed.id,
                RetryTask(meta.trace),
                meta=meta,
                queue_max=self._queue_max,
                # One that has been round and failed again is another failure.
                expected_versions=(failed.version,),
            )
        except Rejection as rejection:
            reason = _SKIPPED.get(rejection.code)
            if reason is None:
                raise
            return reason


class _Candidates:
    """The tasks that match, those first that failed first. A queue that has no room is asked no
    more: its tasks, which may be the oldest by far, must not hold back those of others."""

    def __init__(
        self, store: Store, read_model: ReadModel, filters: FailureFilters, first: Sequence[Failed]
    ) -> None:
        self._store = store
        self._read_model = read_model
        self._filters = filters
        self.tasks = deque(first)
        """Those that were read, and not looked at yet."""
        self._last = first[-1] if first else None
        self._full: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
        """The partitions in which a queue has no room."""

    def take(self, n: int, run: "_Run") -> list[Failed]:
        """The next ones that may find room, at most so many; the run is told of those passed."""
        taken: list[Failed] = []
        while self.tasks and len(taken) < n:
            failed = self.tasks.popleft()
            if self._store.partition_of(failed.id) in self._full.get(failed.queue, ()):
                run.take(failed, SkipReason.QUEUE_FULL)
            else:
                taken.append(failed)
        return taken

    def leave_queue_of(self, failed: Failed) -> None:
        self._full[failed.queue].add(self._store.partition_of(failed.id))

    async def read_on(self) -> bool:
        """Read some more; whether there are any. Raises Unavailable, Rejection."""
        if self._last is None:
            return False
        everywhere = self._store.partitions
        full = tuple(queue for queue, where in self._full.items() if len(where) == everywhere)
        further = Further(self._last, full)
        found = await self._read_model.look(
            lambda db: further_failed_tasks(db, self._filters, CANDIDATES, further)
        )
        if found:
            self._last = found[-1]
            self.tasks.extend(found)
        return bool(found)


class _Run:
    """What a request has come to so far."""

    def __init__(self, found: FailedTasks, as_of: int, dry_run: bool) -> None:
        self._found = found
        self._as_of = as_of
        self._dry_run = dry_run
        self._skipped: Counter[SkipReason] = Counter()
        self.retried: Counter[bytes] = Counter()
        """By fingerprint."""
        self.committed: list[Committed] = []

    def take(self, failed: Failed, outcome: Committed | SkipReason) -> None:
        if isinstance(outcome, SkipReason):
            self._skipped[outcome] += 1
        else:
            self.retried[failed.fingerprint] += 1
            self.committed.append(outcome)

    def view(self) -> BulkRetried:
        skipped = self._skipped
        left = self._found.total - skipped[SkipReason.MOVED_ON] - skipped[SkipReason.GONE]
        return BulkRetried(
            self.retried.total(),
            {reason: n for reason, n in skipped.items() if n},
            # Some that were read later may not have been there when they were counted.
            max(0, left - self.retried.total()),
            self._dry_run,
            {found.hex(): n for found, n in self.retried.most_common()},
            moment_text(self._as_of),
        )


def _cut_off(fault: BaseException, run: _Run) -> BaseException:
    """The error of a request that was carried out in part."""
    if not isinstance(fault, Rejection | ApiError):
        return fault
    return of_rejection(fault, msgspec.to_builtins(run.view()))


def _several(asked: BulkRetryBody) -> BulkRetryBody:
    """With a list in place of each single value."""
    fields = {
        name: (value,)
        for name in ("kb_id", "task_type", "error_kind", "fingerprint")
        if isinstance(value := getattr(asked, name), str)
    }
    return msgspec.structs.replace(asked, **fields)


def _expected(settings: Settings) -> dict[str, str]:
    """What each field must be, in words."""

    def several(one: str) -> str:
        return f"{one}, or an array of 1 to {VALUES_MAX} of them"

    return {
        "kb_id": several("text of 1 to 255 characters"),
        "task_type": several(f"one of {', '.join(settings.known_task_types)}"),
        "error_kind": several(f"one of {', '.join(kind.value for kind in ErrorKind)}"),
        "fingerprint": several("16 hexadecimal digits in lower case"),
        **dict.fromkeys(
            ("created_after", "created_before", "failed_after", "failed_before"), AGE_EXPECTED
        ),
        "dry_run": "true or false",
        "limit": f"a whole number from 1 to {LIMIT_MAX}",
    }
