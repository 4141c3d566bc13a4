"""The requests that read a task: as it is, as it was, when it is finished, and its history."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType

from api.describe import ETAG, IF_NONE_MATCH_HEADER, Answer, Group, operation
from api.errors import ApiError, ErrorCode, invalid, task_not_found
from api.estimates import Estimates
from api.exchange import ClientGone, Exchange
from api.live import Live, Watch
from api.preconditions import is_known
from api.query import QueryReader
from api.scalars import TimeOrAge, of_setting
from api.system_history import SystemHistoryPages
from api.waiting import queue_position
from api.wire import (
    History,
    SystemHistory,
    TaskView,
    event_view,
    moment_text,
    parse_as_of,
    task_json,
)
from ledger.codec import encode
from ledger.evolve import fold
from ledger.identity import is_task_id
from ledger.rejections import RejectionCode
from ledger.settings import Settings
from ledger.store import Recorded, Store
from ledger.task import Task


class TaskQuery(msgspec.Struct, frozen=True):
    """Which state of the task is asked for: at most one of these."""

    version: (
        Annotated[
            int,
            Meta(
                ge=1,
                le=999_999_999,
                description="The task as it was at this version.",
                extra={"expected": "a whole number from 1 to the task's version"},
            ),
        ]
        | UnsetType
    ) = UNSET
    as_of: (
        Annotated[TimeOrAge, Meta(description="The task as it was at this time, or this long ago.")]
        | UnsetType
    ) = UNSET
    wait: (
        Annotated[
            float,
            Meta(
                ge=0,
                description="Seconds to wait for the task to finish; then its present state.",
                extra_json_schema=of_setting("wait_seconds_max"),
            ),
        ]
        | UnsetType
    ) = UNSET


SYSTEM_PAGE_MAX: Final = 1_000


class SystemEventsQuery(msgspec.Struct, frozen=True):
    """Which part of the service's history is asked for."""

    after: Annotated[
        int, Meta(ge=0, le=999_999_999, description="Only what happened after this version.")
    ] = 0
    limit: Annotated[int, Meta(ge=1, le=SYSTEM_PAGE_MAX, description="At most so many.")] = 100


class Queries:
    """The reading endpoints; each takes an Exchange and answers it, or raises."""

    _task_query: Final = QueryReader(TaskQuery)
    _system_events_query: Final = QueryReader(SystemEventsQuery)

    def __init__(self, store: Store, settings: Settings, live: Live, estimates: Estimates) -> None:
        self._store = store
        self._estimates = estimates
        self._live = live
        self._wait_seconds_max = settings.wait_seconds_max
        self._system_history = SystemHistoryPages(store)

    @operation(
        "getTask",
        Group.TASKS,
        {
            200: Answer("The task.", TaskView, (ETAG,)),
            304: Answer("It is at a version that the caller has.", headers=(ETAG,), media_type=""),
        },
        query=TaskQuery,
        headers=(IF_NONE_MATCH_HEADER,),
        refusals=(RejectionCode.TASK_NOT_FOUND, ErrorCode.NOT_FOUND),
    )
    async def task(self, exchange: Exchange) -> None:
        """Read a task.

        As it is, as it was at a version or a time, or as it is once it has finished. A version that
        is not there yet, and a time at which there was no task, are `NOT_FOUND`.

        A version that the caller has (`If-None-Match`) is not sent again, except while the task
        waits in a queue: its `queue_position` changes without it. So does `estimated_completion`.
        """
        asked = self._task_query.read(exchange)
        found = await self.read(exchange.task_id, asked, lambda w: _while_connected(exchange, w))
        await self._answer(exchange, *found)

    async def read(
        self,
        task_id: str,
        asked: TaskQuery,
        waiting: Callable[[Watch], AbstractAsyncContextManager[None]] | None = None,
    ) -> tuple[Task, int, int | None]:
        """The task, its queue position and its estimated completion (ms): the last two of a task as
        it is. `waiting` is entered while this waits. Raises ApiError."""
        given = [name for name in asked.__struct_fields__ if getattr(asked, name) is not UNSET]
        if len(given) > 1:
            raise invalid(
                " and ".join(given),
                "at most one of version, as_of and wait: they exclude each other",
            )
        if not is_task_id(task_id):
            raise task_not_found(task_id)
        if asked.version is not UNSET:
            return await self._at_version(task_id, asked.version), 0, None
        if asked.as_of is not UNSET:
            return await self._as_of(task_id, asked.as_of), 0, None
        if asked.wait is UNSET:
            task = await self._load(task_id)
        else:
            task = await self._when_finished(task_id, asked.wait, waiting)
        position = await queue_position(self._store, task)
        return task, position, await self._estimates.of(task, position)

    @operation(
        "getTaskEvents",
        Group.TASKS,
        {200: Answer("Its whole history.", History)},
        refusals=(RejectionCode.TASK_NOT_FOUND,),
    )
    async def events(self, exchange: Exchange) -> None:
        """Read a task's events, oldest first."""
        exchange.parameters()
        task_id = _task_id(exchange)
        history = await self._history(task_id)
        await exchange.respond(200, encode(History(task_id, [event_view(e) for e in history])))

    @operation(
        "getSystemEvents",
        Group.FEED,
        {200: Answer("What happened to the service.", SystemHistory)},
        query=SystemEventsQuery,
    )
    async def system_events(self, exchange: Exchange) -> None:
        """Read the events that belong to no task: pauses, limits, lost workers.

        Oldest first, and a part at a time: send `next_after` as `after` for what follows.
        """
        asked = self._system_events_query.read(exchange)
        found, is_more = await self._system_history.page(asked.after, asked.limit)
        more = found[-1].version if found and is_more else None
        await exchange.respond(200, encode(SystemHistory([*map(event_view, found)], more)))

    # -- now ----------------------------------------------------------------------------------

    async def _load(self, task_id: str) -> Task:
        task = await self._store.load(task_id)
        if task is None:
            raise task_not_found(task_id)
        return task

    async def _when_finished(
        self,
        task_id: str,
        seconds: float,
        waiting: Callable[[Watch], AbstractAsyncContextManager[None]] | None,
    ) -> Task:
        if seconds > self._wait_seconds_max:
            raise invalid("wait", f"seconds from 0 to {self._wait_seconds_max}, such as 20 or 0.5")
        task = await self._load(task_id)
        if seconds == 0 or task.finished:
            return task
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        beside = waiting or contextlib.nullcontext
        async with self._live.watching(task_id) as watch, beside(watch):
            # Once more: it may have ended before the watch stood.
            task = await self._load(task_id)
            while not task.finished and await watch.within(deadline - loop.time()):
                task = await self._load(task_id)
        return task if task.finished else await self._load(task_id)

    # -- then ---------------------------------------------------------------------------------

    async def _history(self, task_id: str) -> list[Recorded]:
        history = await self._store.history(task_id)
        if not history:
            raise task_not_found(task_id)
        return history

    async def _at_version(self, task_id: str, version: int) -> Task:
        history = await self._history(task_id)
        if version > history[-1].version:
            raise ApiError(
                ErrorCode.NOT_FOUND,
                f"the task has {history[-1].version} versions so far, and no version {version}",
                {"task_id": task_id, "version": history[-1].version},
            )
        return _folded(task_id, [e for e in history if e.version <= version])

    async def _as_of(self, task_id: str, text: str) -> Task:
        try:
            at = parse_as_of(text, self._store.now_ms())
        except ValueError:
            raise self._task_query.wrong("as_of") from None
        history = await self._history(task_id)
        if at < history[0].at:
            created_at = moment_text(history[0].at)
            raise ApiError(
                ErrorCode.NOT_FOUND,
                f"the task did not exist then: it was created at {created_at}",
                {"task_id": task_id, "created_at": created_at},
            )
        return _folded(task_id, [e for e in history if e.at <= at])

    async def _answer(
        self, exchange: Exchange, task: Task, position: int = 0, estimate: int | None = None
    ) -> None:
        etag = b'"%d"' % task.version
        # What waits in a queue moves up there while its version stays.
        if position == 0 and is_known(exchange.list_header(b"if-none-match"), etag):
            await exchange.respond_empty(304, [(b"etag", etag)])
        else:
            await exchange.respond(200, task_json(task, position, estimate), [(b"etag", etag)])


@contextlib.asynccontextmanager
async def _while_connected(exchange: Exchange, watch: Watch) -> AsyncGenerator[None]:
    """End the watch when the caller hangs up, so that nothing waits for nobody."""
    gone = asyncio.get_running_loop().create_task(exchange.gone())
    gone.add_done_callback(lambda _: watch.fail(ClientGone()))
    try:
        yield
    finally:
        gone.cancel()


def _task_id(exchange: Exchange) -> str:
    task_id = exchange.task_id
    if not is_task_id(task_id):
        raise task_not_found(task_id)
    return task_id


def _folded(task_id: str, history: Sequence[Recorded]) -> Task:
    task = fold(task_id, ((recorded.event(), recorded.at) for recorded in history))
    if task is None:
        raise task_not_found(task_id)
    return task
