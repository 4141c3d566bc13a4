"""The client for asyncio."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Any, Self, Unpack
from uuid import UUID

import httpx2

from api.client import feed
from api.client.answers import (
    Canceled,
    History,
    QueueInfo,
    SystemStats,
    Task,
    TaskPage,
    TaskStats,
    Update,
)
from api.client.calls import Call, NoAnswer, Pause, Reply, Told
from api.client.core import (
    LONG_POLL_S,
    Core,
    Flow,
    Headers,
    Result,
    StatsFilter,
    TaskOrder,
    Tasks,
    query_of,
)
from api.client.feed import RECONNECT_S, SILENCE_TIMEOUT_S, FeedFilter, Open, Read, Show, Stream
from api.client.pools import Pools
from api.client.retries import Retries
from api.client.submission import Options, Submission
from api.client.task_ids import TaskId
from api.client.uploads import Source, Uploaded, form_of
from api.client.wire import CONNECT_TIMEOUT_S, CONNECTIONS_MAX, TIMEOUT_S, Where, reply_of, url_of


class AsyncClient:
    """A ledgerq service. For one event loop; close it, or use it as a context manager.

    Every method raises LedgerqError, of which there are classes for what callers often catch. Calls
    are made again, within `retries`, where that is safe and may help.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        retries: Retries | None = None,
        headers: Headers | None = None,
        long_poll_s: float = LONG_POLL_S,
        connections_max: int = CONNECTIONS_MAX,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        """`url` is LEDGERQ_URL of the environment, else http://127.0.0.1:8084, where it is not
        given. `headers` go with every request: `X-Actor` says in the history who it was. Where they
        are a function, it is asked for those of each request: of the `traceparent` of now. Each
        call that waits holds one of `connections_max` all the while. Raises ValueError and
        TypeError for what no call could be made with."""
        self._where = Where(url_of(url), timeout_s, connect_timeout_s, connections_max)
        self._core = Core(retries, headers, long_poll_s)
        self._pools = Pools(httpx2.AsyncClient, self._where, transport)

    async def __aenter__(self) -> Self:
        self._own()  # this loop's from here on
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of the connections."""
        for pool in self._own():
            await pool.aclose()

    @property
    def url(self) -> str:
        """Where the service is."""
        return self._where.url

    # -- hand over ----------------------------------------------------------------------------

    async def submit(
        self,
        task_type: str,
        kb_id: str,
        payload: Mapping[str, Any] | None = None,
        *,
        idempotency_key: str | UUID | None = None,
        **options: Unpack[Options],
    ) -> Task:
        """Hand over a task. Sent again, when the answer is lost, under the same key: one is made
        for the call unless it is given, to make the same task from several calls."""
        submission = Submission(task_type, kb_id, {} if payload is None else payload, **options)
        return await self._do(self._core.submit(submission, idempotency_key))

    async def submit_many(
        self, submissions: Iterable[Submission], *, idempotency_key: str | UUID | None = None
    ) -> Tasks:
        """Hand over many. Up to a thousand are one request, all or none of them; more are several,
        and an error says in `submitted` which went before. The same call with the same key then
        goes on from there."""
        return await self._do(self._core.submit_many(submissions, idempotency_key))

    async def upload(
        self,
        files: Source | Sequence[Source],
        kb_id: str,
        *,
        task_type: str | None = None,
        payload: Mapping[str, Any] | None = None,
        idempotency_key: str | UUID | None = None,
        **options: Unpack[Options],
    ) -> Uploaded:
        """Hand over files, and have a task made for each: paths, binary streams, or `File`s. They
        are read as they are sent, and what each is stands in its task's payload, beside
        `payload`."""
        form = form_of(files, kb_id, task_type, payload, options)
        return await self._do(self._core.upload(form, idempotency_key))

    # -- look ---------------------------------------------------------------------------------

    async def get(
        self, task_id: TaskId, *, version: int | None = None, as_of: datetime | str | None = None
    ) -> Task:
        """A task as it is; or as it was at a version, or at a time (or so long ago: 15m, 7d)."""
        return await self._do(self._core.get(task_id, version, as_of))

    async def wait(self, task_id: TaskId, timeout_s: float | None = None) -> Task:
        """The task once it is finished. Raises TaskNotFinished, a TimeoutError, when that is not
        within `timeout_s`."""
        return await self._do(self._core.wait(task_id, timeout_s))

    async def history(self, task_id: TaskId) -> History:
        """All that has happened to a task."""
        return await self._do(self._core.history(task_id))

    async def proof(self, task_id: TaskId) -> bytes:
        """A file that shows to a third party that this is all that has happened to a task. Raises
        NotSealed, an Unavailable, while the archive has not got its last events."""
        return await self._do(self._core.proof(task_id))

    async def list(
        self, *, page: int | None = None, cursor: str | None = None, **wanted: Unpack[TaskOrder]
    ) -> TaskPage:
        """A page of tasks; by its number, or behind the `next_cursor` of another one."""
        return await self._do(self._core.list(wanted, page, cursor))

    async def iterate(self, **wanted: Unpack[TaskOrder]) -> AsyncGenerator[Task]:
        """All tasks that match, page by page behind a cursor: whatever comes or leaves meanwhile,
        in order of `created_at` none is missed or seen twice."""
        cursor = None
        while True:
            page = await self.list(cursor=cursor, **wanted)
            for task in page:
                yield task
            cursor = page.pagination.next_cursor
            if cursor is None:
                return

    async def stats(self, **wanted: Unpack[StatsFilter]) -> TaskStats:
        """How many tasks there are of each kind, and how they fared."""
        return await self._do(self._core.stats(wanted))

    async def system_stats(self) -> SystemStats:
        """The workers, how much waits, and the pace."""
        return await self._do(self._core.system_stats())

    async def queues(
        self,
        *,
        task_type: str | None = None,
        priority: str | None = None,
        as_of: datetime | str | None = None,
    ) -> QueueInfo:
        """What waits; or what did, at a time, or so long ago."""
        return await self._do(self._core.queues(task_type, priority, as_of))

    # -- change -------------------------------------------------------------------------------

    async def cancel(self, task_id: TaskId, *, version: int | None = None) -> Canceled:
        """Cancel a task; `version`: only if it is at this one."""
        return await self._do(self._core.cancel(task_id, version))

    async def retry(self, task_id: TaskId, *, version: int | None = None) -> Task:
        """Queue a failed or canceled task again."""
        return await self._do(self._core.retry(task_id, version))

    async def progress(
        self,
        task_id: TaskId,
        progress: int,
        message: str | None = None,
        *,
        version: int | None = None,
    ) -> Task:
        """Report how far a running task is, in percent; without a message the last one stays."""
        return await self._do(self._core.progress(task_id, progress, message, version))

    # -- follow -------------------------------------------------------------------------------

    def watch(
        self, *task_ids: TaskId, reconnect_s: float | None = RECONNECT_S
    ) -> AsyncGenerator[Update]:
        """Everything that has happened to these tasks (up to 50), and then what happens, as it
        happens; ends when all of them are finished.

        A broken connection is made again, for `reconnect_s` (None: for ever) at a time; nothing is
        left out, and nothing told twice.
        """
        return self._follow(feed.watch(self._core, task_ids, reconnect_s))

    async def follow(
        self,
        *,
        after: str = "now",
        reconnect_s: float | None = RECONNECT_S,
        **wanted: Unpack[FeedFilter],
    ) -> AsyncGenerator[Update]:
        """Everything that happens and matches, for ever: from now on, from the `beginning`, or
        after a position. Raises PositionGone when what comes after that is no longer kept."""
        query = query_of({"after": after, **wanted})
        told = self._follow(feed.tell(feed.Feed(self._core, query, reconnect_s)))
        async with aclosing(told):
            async for data in told:
                yield feed.update_of(data)

    # -- doing it -----------------------------------------------------------------------------

    async def _do(self, flow: Flow[Result]) -> Result:
        told: Told = None
        while True:
            try:
                step = flow.send(told)
            except StopIteration as end:
                return end.value
            told = await self._step(step)

    async def _follow(self, stream: Stream[None]) -> AsyncGenerator[Any]:
        told: Told = None
        _, feeds = self._own()
        async with aclosing(_Line(feeds, self._where, self._core)) as line:
            while True:
                try:
                    step = stream.send(told)
                except StopIteration:
                    return
                match step:
                    case Show():
                        yield step.seen
                        told = None
                    case Open():
                        told = await line.open(step.call)
                    case Read():
                        told = await line.read()
                    case _:
                        told = await self._step(step)

    def _own(self) -> tuple[httpx2.AsyncClient, httpx2.AsyncClient]:
        return self._pools.own(asyncio.get_running_loop())

    async def _step(self, step: Call | Pause) -> Reply | NoAnswer | None:
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return None
        timeout_s = self._where.timeout_s + step.wait_s
        calls, _ = self._own()
        try:
            with self._where.sending(step, self._core.headers, timeout_s) as request:
                response = await calls.request(**request)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            return self._where.no_answer(error, timeout_s)
        return reply_of(response, response.content)


class _Line:
    """A stream that is open, or not."""

    def __init__(self, http: httpx2.AsyncClient, where: Where, core: Core) -> None:
        self._http = http
        self._where = where
        self._core = core
        self._response: httpx2.Response | None = None
        self._parts: AsyncIterator[bytes] = _nothing()

    async def open(self, call: Call) -> Reply | NoAnswer:
        """How the answer begins; all of it when it is an error."""
        await self.aclose()
        request = self._where.request(call, self._core.headers, SILENCE_TIMEOUT_S)
        try:
            response = await self._http.send(self._http.build_request(**request), stream=True)
            self._response = response
            if response.is_success:
                self._parts = response.aiter_bytes()
                return reply_of(response, b"")
            return reply_of(response, await response.aread())
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            return self._where.no_answer(error, SILENCE_TIMEOUT_S)

    async def read(self) -> bytes | NoAnswer:
        """The next part; empty at the end."""
        try:
            return await anext(self._parts, b"")
        except httpx2.HTTPError as error:
            return self._where.no_answer(error, SILENCE_TIMEOUT_S)

    async def aclose(self) -> None:
        """Hang up."""
        if self._response is not None:
            await self._response.aclose()
            self._response = None
            self._parts = _nothing()


async def _nothing() -> AsyncGenerator[bytes]:
    return
    yield
