"""The one process of a node that writes its read model: it follows the ledger as it grows.

Everything happens on the thread of its loop, which is why it has a process of its own. Nothing that
is in the way is looped over in silence: a ledger that went backwards and an event that nobody can
read stop the projections, for all to see, until somebody decides; a damaged file, a missing one and
one of another version are made anew.
"""

import asyncio
import contextlib
import socket
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from ledger.archive.reader import Damaged, Incomplete
from ledger.rejections import Rejection
from ledger.retention import Projection, Retention
from ledger.store import Entry, Events, Position, Store
from projections import sqlite
from projections.catch_up import (
    READ_COUNT_FIRST,
    LedgerCutShort,
    next_count,
    position_of,
    still_there,
    take,
)
from projections.fold import GO_ON_HINT, Poison
from projections.model_files import PROJECTOR_LOCK, REBUILD_LOCK, ModelFiles
from projections.read_model import (
    WENT_BACKWARDS,
    BrokenProjection,
    ReadModel,
    Superseded,
    is_current,
)
from projections.rebuild import Rebuild
from projections.retention import STEP_TASKS

log = structlog.get_logger("projector")

READ_WAIT_MS: Final = 500
"""How long a read waits for events: also how soon an idle projector notices that it should stop,
that another file took its file's place, or that the ledger went backwards."""

PAUSE_S: Final = 1.0
"""Between looks whether another process let go of a lock, whether a stopped projection may go on,
and tries to write to a file that is locked or has no room."""

EVICT_FULL_PAUSE_S: Final = 0.1
EVICT_PAUSE_S: Final = 10.0
"""Between steps of retention, while there is more to let go of, and else."""

PROGRESS_LOG_S: Final = 10.0

ARCHIVE_HINT: Final = "`ledgerq verify` says what the archive lacks; put that back, and start again"

TELL_S: Final = 5.0
"""How often the ledger is told how far the read model is, so that trimming waits for it."""

REBUILD_HINT: Final = "`ledgerq rebuild` makes a read model of the ledger as it is now"


class ProjectorOptions(msgspec.Struct, frozen=True):
    """How a projector works."""

    folder: Path
    skip_events: tuple[str, ...] = ()
    """Positions of events that are left out."""
    retention_ms: int = 0
    """Finished tasks older than this leave the read model; 0 keeps them."""


class OpenFile:
    """The live read model, open for writing, and looked through for damage meanwhile."""

    def __init__(
        self,
        files: ModelFiles,
        path: Path,
        db: sqlite3.Connection,
        epoch: str,
        partitions: int,
        skipped: Sequence[str],
    ) -> None:
        self._files = files
        self._path = path
        self._db = db
        self._inode = path.stat().st_ino
        self._checks_what_was_met = False
        self.model = ReadModel(
            db, partitions=partitions, epoch=epoch, skipped=skipped, may_commit=self._is_live
        )
        self._check_in_thread()

    def check(self) -> None:
        """Raises Superseded when another file took this one's place, or somebody removed it;
        Damaged when a look at the whole file found it so: at the start, and when a reader met
        damage."""
        if not self._is_live():
            raise Superseded
        if self._checking.done() and self._checking.result():
            raise sqlite.Damaged(f"{self._path}: {self._checking.result()}")
        if self._checking.done() and self._files.damage_met() is not None:
            if self._checks_what_was_met:
                self._files.forget_damage()
            else:
                self._check_in_thread()
            self._checks_what_was_met = not self._checks_what_was_met

    def close(self) -> None:
        with contextlib.suppress(sqlite3.ProgrammingError):  # it is through, and closed itself
            self._reader.interrupt()
        self._db.close()

    def _is_live(self) -> bool:
        try:
            return self._files.current() == self._path and self._path.stat().st_ino == self._inode
        except OSError:
            return False

    def _check_in_thread(self) -> None:
        self._reader = sqlite.open_reader(self._path)
        self._checking = asyncio.get_running_loop().run_in_executor(None, self._quick_check)

    def _quick_check(self) -> str:
        """What is wrong with the file; "" when nothing is. A broken page would come up some day, in
        the middle of a query."""
        try:
            [(found,), *_] = self._reader.execute("PRAGMA quick_check(1)")
        except sqlite3.Error as error:
            return str(error) if sqlite.is_damage(error) else ""
        finally:
            self._reader.close()
        return "" if found == "ok" else found


class Projector:
    """A role: `step` again and again, then `close`."""

    def __init__(
        self,
        store: Store,
        options: ProjectorOptions,
        events: Events | None = None,
        retention: Retention | None = None,
    ) -> None:
        """`events`: where they are read, if the store may not have all of them any more;
        `retention`: told how far the read model is."""
        self._store = store
        self._events: Events = store if events is None else events
        self._retention = retention
        self._tell_at_s = 0.0
        self._options = options
        self._files = ModelFiles(options.folder)
        self._lock = contextlib.ExitStack()
        self._locked = False
        self._open_file: OpenFile | None = None
        self._stopped = False
        self._rebuild: Rebuild | None = None
        self._rebuild_lock = contextlib.ExitStack()
        self._built_unopened = False
        self._unbuildable_over: tuple[str, int, int] | None = None
        self._building: asyncio.Task[float] | None = None
        self._reads: dict[int, asyncio.Task[list[Entry]]] = {}
        self._counts = dict.fromkeys(range(store.partitions), READ_COUNT_FIRST)
        self.evict_at_s = 0.0
        self._said: set[str] = set()
        self._hindered_by: str | None = None
        self._out_of_reach = False

    async def step(self) -> float:
        """One round of work; seconds until there may be more. Raises Rejection while the ledger or
        the archive is out of reach, and goes on afterwards where it was."""
        if not self._become_the_one():
            return PAUSE_S
        try:
            if self._open_file is None:
                return await self._open()
            self._open_file.check()
            pause_s = PAUSE_S if self._stopped else await self._follow(self._open_file.model)
            await self._tell(self._open_file.model)
            return pause_s
        except Superseded:
            await self._let_go()
            return 0.0
        except sqlite.Damaged as damage:
            return await self._set_aside(str(damage))
        except sqlite3.Error as error:
            return await self._trouble(error)
        except Rejection as rejection:
            self._hinder(rejection.message)
            self._out_of_reach = True
            raise

    async def close(self) -> None:
        """Let go of the file and of the lock."""
        await self._let_go()
        self._discard_rebuild()
        self._go_on()
        self._lock.close()

    def interrupt(self) -> None:
        """End a rebuild that is under way: its step returns soon."""
        if self._building is not None:
            self._building.cancel()

    # -- being the one ------------------------------------------------------------------------

    def _become_the_one(self) -> bool:
        if not self._locked:
            with contextlib.ExitStack() as stack:
                self._locked = stack.enter_context(self._files.lock(PROJECTOR_LOCK))
                if self._locked:
                    self._lock = stack.pop_all()
                    self._files.forget_hindrance()  # that of one that was killed
        if not self._locked:
            self._say_once("projector_stands_by", hint="another one writes this read model")
        return self._locked

    async def _let_go(self) -> None:
        """Of the file; what was read and not written is read again."""
        await self._drop_reads()
        if self._open_file is not None:
            self._open_file.close()
        self._open_file, self._stopped = None, False

    # -- opening ------------------------------------------------------------------------------

    async def _open(self) -> float:
        path = self._files.current()
        if path is None:
            return await self._make("there is none yet")
        if not path.exists():
            return await self._make("it is missing")
        epoch = await self._events.epoch()
        db = sqlite.open_writer(path)
        try:
            if is_current(db):
                self._open_file = OpenFile(
                    self._files, path, db, epoch, self._store.partitions, self._options.skip_events
                )
        finally:
            if self._open_file is None:
                db.close()
        if self._open_file is None:
            return await self._make("it was made by another version")
        self._discard_rebuild()
        self._built_unopened, self._unbuildable_over = False, None
        self._go_on()
        self._begin(self._open_file.model, epoch)
        return 0.0

    def _begin(self, model: ReadModel, epoch: str) -> None:
        if "tasks" in model.stopped:
            model.go_on()
        for name, stopped in model.stopped.items():
            details = {"at": stopped.at, "reason": stopped.reason, "hint": REBUILD_HINT}
            log.error("projection_stopped", projections=(name,), **details)
        if model.epoch != epoch:
            self._stop_all(model, "0:0-0", "it was made from another ledger", REBUILD_HINT)
        log.info("projector_started", folder=str(self._files.folder), events=model.events)

    async def _make(self, reason: str) -> float:
        """Make a read model, while the old one serves."""
        if self._unbuildable_over == self._files.identity():
            return PAUSE_S
        # What was just made is no good: something is wrong that making it again may not mend.
        pause_s = PAUSE_S if self._built_unopened else 0.0
        rebuild = self._rebuild or self._begin_rebuild(reason)
        if rebuild is None:
            return PAUSE_S
        self._building = building = asyncio.ensure_future(self._build(rebuild))
        try:
            await asyncio.wait([building])
            if not building.cancelled():
                pause_s = max(pause_s, building.result())
        except Rejection:
            raise  # the next step goes on with it
        except BaseException:
            await _end(building)
            self._discard_rebuild()
            raise
        self._building = None
        self._discard_rebuild()
        return pause_s

    def _begin_rebuild(self, reason: str) -> Rebuild | None:
        """None while somebody else makes a file. The lock is held until `_discard_rebuild`, through
        outages too: whoever holds it removes what others began."""
        with contextlib.ExitStack() as stack:
            if not stack.enter_context(self._files.lock(REBUILD_LOCK)):
                return None
            self._rebuild_lock = stack.pop_all()
        log.info("read_model_building", reason=reason)
        self._rebuild = Rebuild(
            self._files,
            self._events,
            skipped=self._options.skip_events,
            progress=self._progress(),
        )
        return self._rebuild

    def _progress(self) -> Callable[[int], None]:
        """What a rebuild tells how far it came: all is in reach then."""
        logged = _logged_progress()

        def progress(events: int) -> None:
            if self._out_of_reach:
                self._go_on()
            logged(events)

        return progress

    async def _build(self, rebuild: Rebuild) -> float:
        """Build it and put it in its place, or say why not; returns how long to pause then."""
        try:
            try:
                await rebuild.build()
            except Poison as poison:
                if self._something_serves():
                    raise
                await rebuild.end_at(poison)
            path = await rebuild.swap()
        except (Poison, BrokenProjection) as error:
            # The old one goes on serving what it has.
            return self._cannot_build(str(error), GO_ON_HINT)
        except (Incomplete, Damaged) as error:
            return self._cannot_build(f"the archive: {error}", ARCHIVE_HINT)
        except (LedgerCutShort, FileNotFoundError) as error:
            log.warning("read_model_build_failed", reason=str(error))
            return PAUSE_S
        self._built_unopened = True
        log.info("read_model_built", file=str(path))
        return 0.0

    def _cannot_build(self, reason: str, hint: str) -> float:
        self._unbuildable_over = self._files.identity()
        log.error("read_model_cannot_be_built", reason=reason, hint=hint)
        self._hinder(f"{reason}; {hint}")
        return PAUSE_S

    def _something_serves(self) -> bool:
        path = self._files.current()
        return path is not None and sqlite.is_whole(path)

    def _discard_rebuild(self) -> None:
        if self._rebuild is not None:
            self._rebuild.discard()
            self._rebuild = None
        self._rebuild_lock.close()

    # -- following ----------------------------------------------------------------------------

    async def _follow(self, model: ReadModel) -> float:
        try:
            try:
                await self._take_round(model)
            except Poison as poison:
                model.commit()
                self._stop_all(model, str(poison.position), str(poison), GO_ON_HINT)
                return 0.0
        except BrokenProjection as error:
            self._stop_all(model, error.at, str(error), GO_ON_HINT)
        except (Incomplete, Damaged) as error:
            await self._drop_reads()
            at = str(Position(0, model.checkpoint(0).entry))
            self._stop_all(model, at, f"the archive: {error}", ARCHIVE_HINT)
        except BaseException:
            # What was read may not have been taken.
            await self._drop_reads()
            raise
        else:
            self._go_on()
            self._evict_when_due(model)
        return 0.0

    async def _drop_reads(self) -> None:
        reads, self._reads = list(self._reads.values()), {}
        for reading in reads:
            await _end(reading)

    async def _take_round(self, model: ReadModel) -> None:
        """Wait for events in any partition, and commit what came."""
        for partition in range(self._store.partitions):
            if partition not in self._reads:
                entry = model.checkpoint(partition).entry
                self._read(Position(partition, entry))
        await asyncio.wait(self._reads.values(), return_when=asyncio.FIRST_COMPLETED)
        done = [partition for partition, read in self._reads.items() if read.done()]
        for partition in done:
            entries = await self._reads.pop(partition)
            if not await still_there(self._events, partition, model.checkpoint(partition)):
                self._went_backwards(model, partition)
                return
            if entries:
                self._counts[partition] = next_count(entries, self._counts[partition])
                self._read(position_of(partition, entries[-1]))
                await asyncio.sleep(0)  # lets the request out
                await take(model, self._events, partition, entries)
        model.commit()

    async def _tell(self, model: ReadModel) -> None:
        """Also when it has come no further: it is there, and waits for what follows."""
        now_s = time.monotonic()
        if self._retention is None or now_s < self._tell_at_s:
            return
        self._tell_at_s = now_s + TELL_S
        node, now_ms, host = self._files.node(), self._store.now_ms(), socket.gethostname()
        for partition in range(self._store.partitions):
            told = Projection(model.checkpoint(partition).entry, now_ms, host)
            await self._retention.tell_projection(partition, node, told)

    def _read(self, position: Position) -> None:
        reading = self._events.entries_after(
            position, self._counts[position.partition], READ_WAIT_MS
        )
        self._reads[position.partition] = asyncio.ensure_future(reading)

    def _went_backwards(self, model: ReadModel, partition: int) -> None:
        at = str(Position(partition, model.checkpoint(partition).entry))
        reason = f"{WENT_BACKWARDS}: the event at {at} is gone, or is another one now"
        self._stop_all(model, at, reason, REBUILD_HINT)

    def _stop_all(self, model: ReadModel, at: str, reason: str, hint: str) -> None:
        self._stopped = True
        model.stop_all(at, f"{reason}; {hint}")

    def _evict_when_due(self, model: ReadModel) -> None:
        now_s = time.monotonic()
        if not self._options.retention_ms or now_s < self.evict_at_s:
            return
        evicted = model.evict(self._store.now_ms() - self._options.retention_ms)
        full = evicted >= STEP_TASKS
        self.evict_at_s = now_s + (EVICT_FULL_PAUSE_S if full else EVICT_PAUSE_S)

    # -- trouble with the file ----------------------------------------------------------------

    async def _trouble(self, error: sqlite3.Error) -> float:
        if sqlite.is_damage(error):
            return await self._set_aside(str(error))
        if not sqlite.is_passing(error):
            raise error
        self._say_once("read_model_not_writable", reason=str(error), hint="tried again and again")
        self._hinder(f"the read model cannot be written: {error}")
        await self._let_go()
        return PAUSE_S

    async def _set_aside(self, reason: str) -> float:
        """A damaged file is kept for whoever wants to know why, and another one is made."""
        path = self._files.current()
        await self._let_go()
        self._discard_rebuild()
        if path is not None:
            aside = self._files.set_aside(path)
            log.error("read_model_damaged", reason=reason, kept_as=str(aside))
        return 0.0

    # -- telling ------------------------------------------------------------------------------

    def _hinder(self, reason: str) -> None:
        """Leave word for /health of what is in the way."""
        if reason != self._hindered_by:
            self._hindered_by = reason
            self._files.report_hindrance(reason)

    def _go_on(self) -> None:
        """What was in the way is over."""
        self._out_of_reach = False
        if self._hindered_by is not None:
            self._hindered_by = None
            self._files.forget_hindrance()

    def _say_once(self, event: str, **details: str) -> None:
        if event not in self._said:
            self._said.add(event)
            log.warning(event, folder=str(self._options.folder), **details)


def _logged_progress() -> Callable[[int], None]:
    """Says every now and then how far a rebuild came."""
    began_s = told_s = time.monotonic()
    total = 0

    def progress(events: int) -> None:
        nonlocal total, told_s
        total += events
        now_s = time.monotonic()
        if now_s - told_s >= PROGRESS_LOG_S:
            told_s = now_s
            rate = round(total / (now_s - began_s))
            log.info("read_model_building", events=total, events_per_s=rate)

    return progress


async def _end(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait([task])
