"""The live feed as a client reads it: Server-Sent Events, resumed whenever they break off.

Like the core, without doing anything: the generators say what to open and to read, and are told
what came.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, Final, TypedDict, TypeVar

import msgspec

from api.client.answers import Update, updates_of
from api.client.calls import Call, NoAnswer, Pause, Reply, Told, error_of
from api.client.core import Core, Texts, query_of
from api.client.errors import LedgerqError, PositionGone, UnexpectedAnswer, Unreachable
from api.client.retries import passes
from api.client.task_ids import TaskId, text_of

EVENTS: Final = "/api/v1/events"
FEED_TYPE: Final = "text/event-stream"
SILENCE_TIMEOUT_S: Final = 45.0
"""The feed has a heartbeat every 15 s: without one for so long, nobody is there."""

RECONNECT_S: Final = 300.0
"""For how long a feed that broke off is tried again."""

TASKS_MAX: Final = 50
"""As many as the service's filter takes."""

Seen = TypeVar("Seen")


class FeedFilter(TypedDict, total=False):
    """Which events: those that satisfy all that is given. A sequence names alternatives."""

    task_id: Texts
    kb_id: Texts
    task_type: Texts
    status: Texts
    """That the event leads to."""
    priority: Texts
    worker_id: Texts
    """Of the worker that wrote it."""


class Open(msgspec.Struct, frozen=True):
    """Ask for a stream, in the place of the one that is open; told how the answer begins."""

    call: Call


class Read(msgspec.Struct, frozen=True):
    """Told the next bytes of the stream: none when it ended, NoAnswer when it broke."""


class Show(msgspec.Struct, frozen=True):
    """For whoever follows."""

    seen: Any


Step = Call | Pause | Open | Read | Show
Stream = Generator[Step, Told, Seen]


class Blocks:
    """Takes the stream apart, and remembers where it was."""

    def __init__(self) -> None:
        self.last_id = ""
        """Of the last block that came whole."""
        self.broke_off()

    def broke_off(self) -> None:
        """What came half has to come again."""
        self._rest = b""
        self._id = self.last_id
        self._data: list[bytes] = []

    def read(self, part: bytes) -> Iterator[bytes]:
        """The data of each block that is whole with the next part; empty where it tells nothing
        but its id."""
        # Not the HTTP client's own lines: those end at what JSON text may hold, such as U+2028.
        *lines, self._rest = (self._rest + part).split(b"\n")
        for line in lines:
            name, _, value = line.partition(b": ")
            if name == b"id":
                self._id = value.decode("latin-1")
            elif name == b"data":
                self._data.append(value)
            elif not line:
                data, self._data = self._data, []
                self.last_id = self._id
                yield b"\n".join(data)


class Feed:
    """A feed that goes on behind what was read of it, whatever happens to the connection."""

    def __init__(
        self,
        core: Core,
        query: Mapping[str, str],
        reconnect_s: float | None = RECONNECT_S,
        on_change: Callable[[LedgerqError | None], None] = lambda _: None,
    ) -> None:
        """`reconnect_s` None: for ever. `on_change` is told why the feed broke off, and None when
        it is there again."""
        self._core = core
        self._query = dict(query)
        self._reconnect_s = reconnect_s
        self._on_change = on_change
        self._ready: deque[bytes] = deque()
        self.begin_anew()

    def begin_anew(self) -> None:
        """Where the query says, not where it was."""
        self._blocks = Blocks()
        self._is_open = False
        self._failures = 0
        self._failed_since_s = 0.0

    def next_block(self) -> Stream[bytes]:
        """The data of the next block, which may be empty. Raises LedgerqError: when the service
        refuses, or cannot be reached."""
        while not self._ready:
            error = (yield from self._read()) if self._is_open else (yield from self._open())
            if error is not None:
                self._is_open = False
                yield from self._failed(error)
        return self._ready.popleft()

    def _open(self) -> Stream[LedgerqError | None]:
        last_id = self._blocks.last_id
        headers = {"last-event-id": last_id} if last_id else {}
        told = yield Open(Call(method="GET", path=EVENTS, query=self._query, headers=headers))
        assert isinstance(told, Reply | NoAnswer), told  # noqa: S101 - the drivers' side of the deal
        error = error_of(told) or _unlike_a_feed(told)
        self._is_open = error is None
        return error

    def _read(self) -> Stream[LedgerqError | None]:
        told = yield Read()
        if isinstance(told, bytes) and told:
            if self._failures:
                self._failures = 0
                self._on_change(None)
            self._ready.extend(self._blocks.read(told))
            return None
        self._blocks.broke_off()
        if isinstance(told, NoAnswer):
            return told.error
        return Unreachable("the service ended the feed", may_be_done=True)

    def _failed(self, error: LedgerqError) -> Stream[None]:
        """Wait for the next try, or raise."""
        self._failures += 1
        if not self._blocks.last_id:
            pause_s = self._core.retries.pause_s(self._failures, error)
            if pause_s is None:
                raise error
            yield Pause(pause_s)
            return
        now_s = self._core.clock()
        if self._failures == 1:
            self._failed_since_s = now_s
            self._on_change(error)
        given_up = self._reconnect_s is not None and (
            now_s - self._failed_since_s >= self._reconnect_s
        )
        if given_up or not passes(error):
            raise error
        pause_s = self._core.retries.backoff_s(self._failures)
        yield Pause(max(pause_s, min(error.retry_after_s or 0.0, self._core.retries.pause_max_s)))


def _unlike_a_feed(told: Reply | NoAnswer) -> UnexpectedAnswer | None:
    """What is wrong with a page that is answered to whatever is asked for."""
    kind = told.headers.get("content-type", "") if isinstance(told, Reply) else FEED_TYPE
    if kind.startswith(FEED_TYPE):
        return None
    message = f"the answer is no feed, but {kind or 'of no type'}"
    return UnexpectedAnswer(message, code="UNEXPECTED_ANSWER", status=200)


def tell(feed: Feed) -> Stream[None]:
    """The JSON of everything that the feed tells, for ever."""
    while True:
        data = yield from feed.next_block()
        if data:
            yield Show(data)


def watch(core: Core, given: Sequence[TaskId], reconnect_s: float | None) -> Stream[None]:
    """All that has happened to these tasks and happens to them, until all of them are finished.

    The feed is opened first and their histories are read then, so that nothing falls in between;
    versions tell what was told already.
    """
    _check(given)
    task_ids = list(map(text_of, given))
    feed = Feed(core, query_of({"task_id": task_ids}), reconnect_s)
    seen: dict[str, int] = dict.fromkeys(task_ids, 0)
    unfinished = set(task_ids)
    is_level = False
    while unfinished:
        try:
            data = yield from feed.next_block()
        except PositionGone:
            # Away for so long that the feed has no more of it: the histories still have.
            if not is_level:
                raise
            feed.begin_anew()
            is_level = False
            continue
        updates = [update_of(data)] if data else []
        if not is_level:
            for task_id in seen:
                updates = updates_of((yield from core.history(task_id))) + updates
            is_level = True
        for update in updates:
            if update.version > seen.get(update.task_id, update.version):
                seen[update.task_id] = update.version
                yield Show(update)
                if update.finished:
                    unfinished.discard(update.task_id)
                else:
                    unfinished.add(update.task_id)


def _check(task_ids: Sequence[TaskId]) -> None:
    count = len(set(map(str, task_ids)))
    if not 1 <= count <= TASKS_MAX:
        raise ValueError(f"expected 1 to {TASKS_MAX} task ids, got {count}")


def update_of(data: bytes) -> Update:
    """What the feed tells, as a type. Raises UnexpectedAnswer."""
    try:
        return msgspec.json.decode(data, type=Update)
    except msgspec.MsgspecError as error:
        raise UnexpectedAnswer(
            f"the feed tells what cannot be read: {error}", code="UNEXPECTED_ANSWER", status=200
        ) from error
