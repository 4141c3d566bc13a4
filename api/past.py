"""Statistics of a moment that has passed: read from a model that is folded up to it.

A fold takes a second for each hundred thousand events or so, in a process of its own. There is one
at a time, its result is kept, and whoever asks for another moment meanwhile is told to come again.
"""

import asyncio
import contextlib
import os
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from api.errors import ApiError, Header
from api.past_process import NAME
from api.query import QueryReader
from api.read_model import POSITION_HEADER
from api.scalars import TimeOrAge
from api.wire import parse_as_of
from consumers.child_process import ChildProcess
from consumers.own_modules import describe_exit, module_argv
from consumers.programs import NoServer, child_env, server_url
from ledger.codec import decode_meta
from ledger.identity import SYSTEM
from ledger.moments import moment_text
from ledger.rejections import Rejection, RejectionCode
from ledger.settings import Settings
from ledger.store import Position, Store, positions_text
from ledger.system.evolve import fold
from ledger.system.state import System
from projections.past import open_past
from projections.read_model import BEGINNING, read_checkpoints

Found = TypeVar("Found")

KEPT_MAX: Final = 2
"""Moments that are kept; each takes as much of the disk as the read model does."""

KEPT_S: Final = 300.0
"""For so long: a moment has what tasks were about that are erased meanwhile."""

ANSWER_WAIT_S: Final = 20.0
"""After so long a caller is told to ask again. The fold goes on meanwhile."""

FOLD_TIMEOUT_S: Final = 900.0
SETTLE_MS: Final = 1_000
"""Until what happened at a moment is written, and its answer stays the same for good."""


AsOf = Annotated[TimeOrAge, Meta(description="As it was at this time, or this long ago.")]


class Moment:
    """A model of a moment, from when its file is there."""

    def __init__(self, db: sqlite3.Connection, partitions: int) -> None:
        self._db = db
        found = read_checkpoints(db)
        self.seen = tuple(
            Position(partition, found[partition].entry if partition in found else BEGINNING)
            for partition in range(partitions)
        )

    def find(self, question: Callable[[sqlite3.Connection], Found]) -> Found:
        """In the thread."""
        return question(self._db)

    def close(self) -> None:
        """In the thread: the file goes with it."""
        self._db.close()


class Making(msgspec.Struct, frozen=True):
    """A fold that runs."""

    at_ms: int
    moment: asyncio.Task[Moment]


class PastModels:
    """What the read model was at any time."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self._folder = settings.read_model_folder / "past"
        self._thread = ThreadPoolExecutor(1, "past")
        self._kept: OrderedDict[int, Moment] = OrderedDict()
        self._making: Making | None = None
        self._is_stopping = False

    def start(self) -> None:
        """Clear away what processes left behind that were killed."""
        _remove_left_over(self._folder, at_start=True)

    async def ask(
        self, at_ms: int, question: Callable[[sqlite3.Connection], Found]
    ) -> tuple[Found, list[Header]]:
        """What is found of all that had happened by the end of a ms, and the headers that go with
        it. Raises Rejection or ApiError where the caller has to ask again."""
        moment = await self._at(at_ms)
        try:
            found = await self._in_thread(lambda: moment.find(question))
        except sqlite3.Error as error:
            raise _unavailable(f"what was folded cannot be read: {error}; try again") from error
        return found, [(POSITION_HEADER, positions_text(moment.seen).encode())]

    async def system(self, at_ms: int) -> System:
        """The service as a whole, as it was then."""
        history = await self._store.history(SYSTEM)
        return fold(
            (each.system_event(), each.at, decode_meta(each.meta).actor)
            for each in history
            if each.at <= at_ms
        )

    async def stop_waiting(self) -> None:
        """End a fold that runs, and answer whoever waits for it. There is none any more."""
        self._is_stopping = True
        if self._making is not None:
            self._making.moment.cancel()
            await asyncio.wait([self._making.moment])

    async def close(self) -> None:
        """Let go of all that is kept."""
        await self.stop_waiting()
        for moment in self._kept.values():
            await self._in_thread(moment.close)
        self._kept.clear()
        self._thread.shutdown(wait=False)

    async def _at(self, at_ms: int) -> Moment:
        known = self._kept.get(at_ms)
        if known is not None:
            self._kept.move_to_end(at_ms)
            return known
        making = self._making
        if self._is_stopping:
            raise _stopping()
        if making is None:
            task = asyncio.get_running_loop().create_task(self._make(at_ms))
            task.add_done_callback(self._made)
            self._making = making = Making(at_ms, task)
        elif making.at_ms != at_ms:
            raise _unavailable("another moment is being looked up, one at a time is: try again")
        await asyncio.wait([making.moment], timeout=ANSWER_WAIT_S)
        if not making.moment.done():
            as_of = moment_text(at_ms)
            raise ApiError(
                RejectionCode.SERVICE_UNAVAILABLE,
                "the ledger is being folded up to that time, which takes longer than an answer may:"
                f" ask again with as_of={as_of}",
                {"as_of": as_of},
            )
        if making.moment.cancelled():
            raise _stopping()
        return making.moment.result()

    def _made(self, task: asyncio.Task[Moment]) -> None:
        making, self._making = self._making, None
        if making is None or task.cancelled() or task.exception() is not None:
            return
        moment = self._kept[making.at_ms] = task.result()
        task.get_loop().call_later(KEPT_S, self._let_go, making.at_ms, moment)
        while len(self._kept) > KEPT_MAX:
            _, oldest = self._kept.popitem(last=False)
            self._thread.submit(oldest.close)

    def _let_go(self, at_ms: int, moment: Moment) -> None:
        if self._kept.get(at_ms) is moment:
            del self._kept[at_ms]
            self._thread.submit(moment.close)

    async def _make(self, at_ms: int) -> Moment:
        await asyncio.sleep(max(0, at_ms + SETTLE_MS - self._store.now_ms()) / 1000)
        partitions = self._store.partitions
        path = self._folder / f"{os.getpid()}-{at_ms}.sqlite3"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            _remove_left_over(self._folder)
            code = await self._fold(path, at_ms)
            if code != 0:
                raise _unavailable(
                    f"the ledger could not be folded up to that time ({describe_exit(code)}): the"
                    " service's log says why"
                )
            return await self._in_thread(lambda: Moment(open_past(path), partitions))
        except (OSError, sqlite3.Error, NoServer) as error:
            raise _unavailable(f"the ledger cannot be folded up to that time: {error}") from error
        finally:
            for each in self._folder.glob(f"{path.name}*"):
                with contextlib.suppress(OSError):
                    each.unlink()

    async def _fold(self, path: Path, at_ms: int) -> int:
        settings = replace(self._settings, redis_url=server_url(self._settings))
        argv = module_argv("api.past_process", str(path), str(at_ms))
        child = await ChildProcess.spawn(NAME, argv, child_env(settings, os.environ), ())
        try:
            async with asyncio.timeout(FOLD_TIMEOUT_S):
                return await child.live(FOLD_TIMEOUT_S)
        except TimeoutError:
            raise _unavailable(f"it took more than {FOLD_TIMEOUT_S:g} s") from None

    async def _in_thread(self, work: Callable[[], Found]) -> Found:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def moment_of(text: str, now_ms: int, reader: QueryReader[Any]) -> int:
    """The ms that `as_of` means. Raises ApiError."""
    try:
        return min(max(parse_as_of(text, now_ms), 0), now_ms)
    except ValueError:
        raise reader.wrong("as_of") from None


def _remove_left_over(folder: Path, *, at_start: bool = False) -> None:
    """What processes left behind that were killed; `at_start`: this one has made none yet."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for path in folder.iterdir():
            pid = path.name.partition("-")[0]
            with contextlib.suppress(OSError):
                age_s = time.time() - path.stat().st_mtime
                is_ours = at_start and pid == str(os.getpid())
                if is_ours or age_s > FOLD_TIMEOUT_S or _is_gone(pid):
                    path.unlink()


def _is_gone(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (ValueError, OverflowError, OSError):
        pass
    return False


def _unavailable(message: str) -> Rejection:
    return Rejection(RejectionCode.SERVICE_UNAVAILABLE, message)


def _stopping() -> Rejection:
    return _unavailable("this process is stopping: ask another one")
