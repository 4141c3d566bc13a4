"""One read model, open for writing: entries of the ledger go in, rows and checkpoints come out.

Rows, counts and checkpoints of a batch are committed in one transaction, so that each event counts
once, whenever the process ends.
"""

import hashlib
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

import msgspec
import structlog

from ledger.script_format import read_events
from ledger.store import Entry, Position, Recorded
from projections import queues, retention, sqlite, stats, tasks
from projections.fold import Fold, Missing, Poison
from projections.names import Names

log = structlog.get_logger("projections")

VERSIONS: Final = {
    "tasks": tasks.VERSION,
    "stats": stats.VERSION,
    "queues": queues.VERSION,
}
"""The projections, and what they are at now. `tasks` is the one that the others hang on."""

BEGINNING: Final = "0-0"
_SEEN: Final = "seen_by_{}"
"""The fact that says how far a projection got that stopped alone: positions, one a partition."""

WENT_BACKWARDS: Final = "the ledger went backwards"
"""How the reason begins of projections that stopped over that."""


class Checkpoint(msgspec.Struct, frozen=True):
    """How far a partition is read: its last event, and how many entries that were, with the foreign
    ones before it."""

    entry: str
    digest: bytes
    """SHA-256 of the event at `entry`; empty at the beginning."""
    events: int


class Strangers(msgspec.Struct, frozen=True):
    """Foreign entries behind a checkpoint, which count once an event follows."""

    last: Position
    n: int


class Stopped(msgspec.Struct, frozen=True):
    """Why a projection does not go on, and at which event."""

    at: str
    reason: str


def digest(recorded: Recorded) -> bytes:
    """What tells an event from any other that could stand at its position."""
    parts = (
        recorded.type.encode(),
        recorded.task_id.encode(),
        b"%d %d" % (recorded.version, recorded.at),
        recorded.data,
        recorded.meta,
        recorded.prev.encode(),
    )
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(len(part).to_bytes(8, "big"))
        hashed.update(part)
    return hashed.digest()


class ReadModel:
    """`take` entries, then `commit`. Not safe for threads; one at a time for a file."""

    def __init__(
        self,
        db: sqlite3.Connection,
        *,
        partitions: int,
        epoch: str,
        skipped: Collection[str] = (),
        may_commit: Callable[[], bool] = lambda: True,
    ) -> None:
        """`may_commit` is asked once the file is locked for a commit; see `Superseded`."""
        self.db = db
        self._may_commit = may_commit
        self._skipped = skipped
        self._checkpoints = {p: Checkpoint(BEGINNING, b"", 0) for p in range(partitions)}
        self._pending: dict[int, Checkpoint] = {}
        self._strangers: dict[int, Strangers] = {}
        with transaction(db):
            self._prepare(epoch)
        self._forget()

    def _prepare(self, epoch: str) -> None:
        """Fill in what a new file lacks, and read how far an old one came."""
        self.db.executemany(
            "INSERT INTO projections (name, version) VALUES (?, ?) ON CONFLICT (name) DO NOTHING",
            list(VERSIONS.items()),
        )
        self.db.execute(
            "INSERT INTO facts (name, value) VALUES ('epoch', ?) ON CONFLICT (name) DO NOTHING",
            (epoch,),
        )
        self._checkpoints.update(read_checkpoints(self.db))

    def _forget(self) -> None:
        """Drop what is gathered, and all that is known from the file."""
        self._names = Names(self.db)
        self._fold = Fold(self.db, self._names, self._skipped)
        self._pending = {}
        self._strangers = {}

    # -- what it is ---------------------------------------------------------------------------

    @property
    def epoch(self) -> str:
        """Of the ledger that it was made from."""
        return read_fact(self.db, "epoch") or ""

    @property
    def stopped(self) -> dict[str, Stopped]:
        """The projections that do not go on."""
        return read_stopped(self.db)

    def checkpoint(self, partition: int) -> Checkpoint:
        """How far the partition was read, with what is not committed yet."""
        return self._pending.get(partition) or self._checkpoints[partition]

    @property
    def gathered(self) -> tuple[int, int]:
        """What waits for a commit: tasks, bytes."""
        return len(self._fold), self._fold.bytes

    @property
    def events(self) -> int:
        """Read so far, of all partitions."""
        return sum(self.checkpoint(partition).events for partition in self._checkpoints)

    # -- events -------------------------------------------------------------------------------

    def take(self, partition: int, entries: Sequence[Entry]) -> None:
        """Fold the next entries of one partition.

        Raises Poison, and Missing (see `remember`); what came before that event is taken then, and
        can be committed.
        """
        try:
            self._fold.take(partition, entries)
        except (Poison, Missing) as stop:
            names = [name.decode() for name, _ in entries]
            self._reach(partition, entries[: names.index(stop.position.entry)])
            raise
        self._reach(partition, entries)

    def remember(self, missing: Missing, history: Sequence[Recorded]) -> None:
        """Know the task of a Missing event by its history, and take that event again."""
        self._fold.remember(missing, history)

    def _reach(self, partition: int, entries: Sequence[Entry]) -> None:
        strangers = self._strangers.get(partition)
        if strangers is not None:
            # After trouble they are read again.
            entries = [e for e in entries if _order(partition, e) > strangers.last.order]
        n = 0 if strangers is None else strangers.n
        last = _last_event(partition, entries)
        if last is not None:
            end, event = last
            passed = self.checkpoint(partition).events + n + end
            self._pending[partition] = Checkpoint(event.position.entry, digest(event), passed)
            self._strangers.pop(partition, None)
            n, entries = 0, entries[end:]
        if entries:
            at = Position(partition, entries[-1][0].decode())
            self._strangers[partition] = Strangers(at, n + len(entries))

    def commit(self) -> None:
        """Write what was taken. On any error nothing is written.

        Raises sqlite3.Error for trouble with the file, Superseded, and BrokenProjection when
        `tasks` cannot digest the batch; another projection that cannot is stopped, and that is all.
        """
        if not self._pending:
            return
        with transaction(self.db):
            if not self._may_commit():
                raise Superseded
            self._write()
        if any(change.after.erased for change in self._fold.changes):
            # The log that is written ahead has pages as they were before: let it be overwritten.
            self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._checkpoints.update(self._pending)
        self._pending = {}
        self._names.written()
        self._fold.clear()

    def _write(self) -> None:
        changes = sorted(self._fold.changes, key=lambda change: change.id)
        stopped = self.stopped
        self._write_projection(
            "tasks",
            lambda: tasks.write(self.db, changes, self._names, retention.evicted_before(self.db)),
            stopped,
        )
        measures = self._fold.measures
        self._write_projection("stats", lambda: stats.write(self.db, changes, measures), stopped)
        self._write_projection("queues", lambda: queues.write(self.db, changes), stopped)
        self._names.write()
        self._write_checkpoints()

    def _write_projection(
        self, name: str, write: Callable[[], None], stopped: Mapping[str, Stopped]
    ) -> None:
        if name in stopped:
            return
        self.db.execute("SAVEPOINT projection")
        try:
            write()
        except Exception as error:
            if isinstance(error, sqlite3.Error) and (
                sqlite.is_passing(error) or sqlite.is_damage(error)
            ):
                raise
            if name == "tasks":
                raise BrokenProjection(str(self._first_pending()), repr(error)) from error
            self.db.execute("ROLLBACK TO projection")
            self._stop((name,), str(self._first_pending()), repr(error))
            self._keep_seen(name)
        self.db.execute("RELEASE projection")

    def _first_pending(self) -> Position:
        """Behind which the batch in hand begins."""
        partition = min(self._pending)
        return Position(partition, self._checkpoints[partition].entry)

    def _keep_seen(self, name: str) -> None:
        """The checkpoints go on without a projection that stopped alone: keep where they were."""
        seen = [str(Position(p, c.entry)) for p, c in self._checkpoints.items()]
        self.db.execute(
            "INSERT OR REPLACE INTO facts (name, value) VALUES (?, ?)",
            (_SEEN.format(name), ",".join(seen)),
        )

    def _write_checkpoints(self) -> None:
        self.db.executemany(
            "INSERT INTO checkpoints (partition, entry, digest, events) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (partition) DO UPDATE SET entry = excluded.entry,"
            " digest = excluded.digest, events = excluded.events",
            [(p, c.entry, c.digest, c.events) for p, c in self._pending.items()],
        )

    def evict(self, before_ms: int) -> int:
        """Let a bounded number of tasks go that were finished before `before_ms`; how many went.
        Nothing may wait for a commit."""
        assert not self._pending  # noqa: S101 - it would be lost with what is superseded
        with transaction(self.db):
            if not self._may_commit():
                raise Superseded
            return retention.evict(self.db, before_ms)

    # -- stopping -----------------------------------------------------------------------------

    def stop_all(self, at: str, reason: str) -> None:
        """Mark every projection as stopped, for all to see. What is gathered is dropped."""
        self._forget()
        with transaction(self.db):
            self._stop(tuple(VERSIONS), at, reason)

    def go_on(self) -> None:
        """Take the marks away from what stopped together with `tasks`: its events are still to
        come. A projection that stopped by itself has missed some."""
        with transaction(self.db):
            self.db.execute(
                "UPDATE projections SET stopped_at = '', reason = '' WHERE (stopped_at, reason) ="
                " (SELECT stopped_at, reason FROM projections WHERE name = 'tasks')"
            )

    def _stop(self, names: Sequence[str], at: str, reason: str) -> None:
        log.error("projection_stopped", projections=names, at=at, reason=reason)
        self.db.executemany(
            "UPDATE projections SET stopped_at = ?, reason = ? WHERE name = ? AND stopped_at = ''",
            [(at, reason, name) for name in names],
        )


class Superseded(Exception):
    """Another file has taken this one's place: nothing may be written here any more."""


class BrokenProjection(Exception):
    """The projection `tasks` cannot digest a batch; what hangs on it stops too."""

    def __init__(self, at: str, reason: str) -> None:
        super().__init__(f"behind {at}: {reason}")
        self.at = at


def read_checkpoints(db: sqlite3.Connection) -> dict[int, Checkpoint]:
    """By partition; those of which nothing was read yet are missing."""
    rows = db.execute("SELECT partition, entry, digest, events FROM checkpoints")
    return {partition: Checkpoint(*row) for partition, *row in rows}


def read_seen(db: sqlite3.Connection, projection: str) -> dict[int, Position]:
    """How far a projection is, by partition; nothing of a partition that was not begun."""
    alone = read_fact(db, _SEEN.format(projection))
    if alone is not None:
        return {at.partition: at for at in map(Position.parse, alone.split(","))}
    return {p: Position(p, point.entry) for p, point in read_checkpoints(db).items()}


def read_stopped(db: sqlite3.Connection) -> dict[str, Stopped]:
    """The projections that do not go on, by name."""
    rows = db.execute("SELECT name, stopped_at, reason FROM projections WHERE stopped_at != ''")
    return {name: Stopped(at, reason) for name, at, reason in rows}


def is_current(db: sqlite3.Connection) -> bool:
    """Whether this version of ledgerq would make the same tables and the same rows."""
    [[schema_version]] = db.execute("PRAGMA user_version")
    if schema_version != sqlite.SCHEMA_VERSION:
        return False
    return dict(db.execute("SELECT name, version FROM projections")) == VERSIONS


def read_fact(db: sqlite3.Connection, name: str) -> str | None:
    """A single value of the table `facts`."""
    row = db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
    return None if row is None else row[0]


def _last_event(partition: int, entries: Sequence[Entry]) -> tuple[int, Recorded] | None:
    """The last of the entries that is an event, and how many they are up to and with it."""
    for end in range(len(entries), 0, -1):
        events, _ = read_events(partition, entries[end - 1 : end])
        if events:
            return end, events[0]
    return None


def _order(partition: int, entry: Entry) -> tuple[int, int]:
    return Position(partition, entry[0].decode()).order


class transaction:
    """Take the file's write lock; commit in the end, or take everything back."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._db.execute("COMMIT")
        elif self._db.in_transaction:
            self._db.execute("ROLLBACK")
