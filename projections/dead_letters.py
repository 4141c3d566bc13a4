"""Failed tasks as groups of the same failure, and which of them a retry is to send round again.

Without bounds in time the groups and their sizes stand in `failure_groups`; within bounds the
failures themselves are counted, in an index that holds no other tasks.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Final
from uuid import UUID

import msgspec

from ledger.events import ErrorKind
from projections.counting import ALL_KBS
from projections.failures import ERROR_KINDS
from projections.selection import Numbers, Sql, all_of, numbers_of, one_of

EXAMPLES_MAX: Final = 3
"""Tasks that are named of a group, those that failed last."""


class FailureFilters(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which failed tasks are meant; as in `list_query.Filters`."""

    kb_ids: tuple[str, ...] | None = None
    task_types: tuple[str, ...] | None = None
    error_kinds: tuple[ErrorKind, ...] | None = None
    fingerprints: tuple[bytes, ...] | None = None
    created_after: int | None = None
    created_before: int | None = None
    failed_after: int | None = None
    failed_before: int | None = None


class FailureGroup(msgspec.Struct, frozen=True):
    """Tasks that failed in the same way, of those that are meant. Times are in ms."""

    fingerprint: bytes
    task_type: str
    error_kind: ErrorKind
    n: int
    kbs: int
    """How many knowledge bases they belong to."""
    first_at: int
    last_at: int
    message: str
    """Of the task that failed last."""
    task_ids: tuple[str, ...]
    """The last ones, the latest first."""


class FailureGroups(msgspec.Struct, frozen=True):
    """Some of the groups, the largest first; how many groups and tasks there are in all."""

    groups: tuple[FailureGroup, ...]
    total: int
    tasks: int


class Failed(msgspec.Struct, frozen=True):
    """One failed task, at the version at which it is known to have failed."""

    id: str
    version: int
    fingerprint: bytes
    failed_at: int
    queue: tuple[int, int]
    """Its type and priority, in the read model's numbers."""


class Further(msgspec.Struct, frozen=True):
    """Where to go on among the tasks that match: after one, and past those of some queues."""

    after: Failed
    without: tuple[tuple[int, int], ...] = ()


class FailedTasks(msgspec.Struct, frozen=True):
    """Those that failed first, and how many there are in all."""

    tasks: tuple[Failed, ...]
    total: int


class _State(msgspec.Struct, frozen=True):
    error_message: str = ""


class _Found(msgspec.Struct, frozen=True, array_like=True):
    """A group, in numbers."""

    fingerprint: bytes
    task_type: int
    error_kind: int
    n: int
    kbs: int


_message_of = msgspec.json.Decoder(_State).decode


def list_groups(
    db: sqlite3.Connection, filters: FailureFilters, skip: int, size: int
) -> FailureGroups:
    """Groups after the first `skip`, in order of their sizes. Call it within a transaction."""
    return _Reading(db, filters).groups(skip, size)


def failed_tasks(db: sqlite3.Connection, filters: FailureFilters, limit: int) -> FailedTasks:
    """At most `limit` tasks. Call it within a transaction."""
    return _Reading(db, filters).tasks(limit)


def further_failed_tasks(
    db: sqlite3.Connection, filters: FailureFilters, limit: int, further: Further
) -> tuple[Failed, ...]:
    """At most `limit` of those that failed later."""
    return _Reading(db, filters).further(limit, further)


class _Reading:
    def __init__(self, db: sqlite3.Connection, filters: FailureFilters) -> None:
        self._db = db
        self._fingerprints = filters.fingerprints
        self._kbs = self._numbers(filters.kb_ids)
        types = self._numbers(filters.task_types)
        self._nothing = self._kbs == () or types == ()
        self._named = [] if filters.fingerprints is None else [_fingerprints(filters.fingerprints)]
        if types is not None:
            self._named.append(one_of("task_type", types))
        if filters.error_kinds is not None:
            kinds = tuple(map(ERROR_KINDS.index, filters.error_kinds))
            self._named.append(one_of("error_kind", kinds))
        self._times = [
            Sql(f"{column} {sign} ?", (at,))
            for column, sign, at in (
                ("created_at", ">", filters.created_after),
                ("created_at", "<", filters.created_before),
                ("completed_at", ">", filters.failed_after),
                ("completed_at", "<", filters.failed_before),
            )
            if at is not None
        ]
        self._by_time = filters.failed_after is not None or filters.failed_before is not None

    def _numbers(self, names: Sequence[str] | None) -> Numbers | None:
        return None if names is None else tuple(numbers_of(self._db, names).values())

    # -- groups -------------------------------------------------------------------------------

    def groups(self, skip: int, size: int) -> FailureGroups:
        if self._nothing:
            return FailureGroups((), 0, 0)
        if self._times:
            found = self._counted()
            total, tasks, page = len(found), sum(g.n for g in found), found[skip : skip + size]
        else:
            total, tasks = self._totals()
            page = self._known(skip, size)
        return FailureGroups(tuple(self._described(page)), total, tasks)

    def _known(self, skip: int, size: int) -> list[_Found]:
        """A page of `failure_groups`."""
        where = self._where_known()
        n, grouped = "n", ""
        if self._kbs is not None and len(self._kbs) > 1:
            n, grouped = "sum(n)", " GROUP BY fingerprint"
        rows = self._db.execute(
            f"SELECT fingerprint, {_first('task_type', grouped)}, {_first('error_kind', grouped)},"  # noqa: S608 - names of ours
            f" {n} AS size FROM failure_groups INDEXED BY failure_groups_n{where.text}{grouped}"
            " ORDER BY size DESC, fingerprint DESC LIMIT ? OFFSET ?",
            (*where.values, size, skip),
        ).fetchall()
        return [_Found(*row, kbs=self._kbs_of(row[0])) for row in rows]

    def _totals(self) -> tuple[int, int]:
        where = self._where_known()
        groups = "count(DISTINCT fingerprint)" if len(self._kbs or ()) > 1 else "count(*)"
        [(total, tasks)] = self._db.execute(
            f"SELECT {groups}, coalesce(sum(n), 0)"  # noqa: S608 - names of ours
            f" FROM failure_groups INDEXED BY failure_groups_n{where.text}",
            where.values,
        )
        return total, tasks

    def _where_known(self) -> Sql:
        return all_of([one_of("kb", (ALL_KBS,) if self._kbs is None else self._kbs), *self._named])

    def _kbs_of(self, fingerprint: bytes) -> int:
        kb = Sql("kb > ?", (ALL_KBS,)) if self._kbs is None else one_of("kb", self._kbs)
        where = all_of([_fingerprints((fingerprint,)), kb])
        [(n,)] = self._db.execute(
            "SELECT count(*) FROM failure_groups INDEXED BY failure_groups_fingerprint"  # noqa: S608 - names of ours
            f"{where.text}",
            where.values,
        )
        return n

    def _counted(self) -> list[_Found]:
        """All groups of the failures within the bounds, counted one by one."""
        where = self._where()
        rows = self._db.execute(
            "SELECT fingerprint, min(task_type), min(error_kind), count(*) AS size,"  # noqa: S608 - names of ours
            f" count(DISTINCT kb) FROM {self._source()}{where.text}"
            " GROUP BY fingerprint ORDER BY size DESC, fingerprint DESC",
            where.values,
        )
        return [_Found(*row) for row in rows]

    # -- what a group is shown with -----------------------------------------------------------

    def _described(self, page: Sequence[_Found]) -> Iterator[FailureGroup]:
        types = tuple({group.task_type for group in page})
        names = _names(self._db, types) if types else {}
        for group in page:
            last = sorted(self._ends(group.fingerprint, "DESC", EXAMPLES_MAX), reverse=True)
            [(first_at, _), *_] = sorted(self._ends(group.fingerprint, "ASC", 1))
            yield FailureGroup(
                group.fingerprint,
                names[group.task_type],
                ERROR_KINDS[group.error_kind],
                group.n,
                group.kbs,
                first_at,
                last[0][0],
                self._message(last[0][1]),
                tuple(str(UUID(bytes=task_id)) for _, task_id in last[:EXAMPLES_MAX]),
            )

    def _ends(self, fingerprint: bytes, direction: str, n: int) -> Iterator[tuple[int, bytes]]:
        """The time and id of the failures at one end, of each knowledge base where some are named:
        each is a step into an index."""
        parts = [_fingerprints((fingerprint,)), *self._times]
        for kb in (None,) if self._kbs is None else self._kbs:
            index = "errors_fingerprint" if kb is None else "errors_kb"
            where = all_of(parts if kb is None else [one_of("kb", (kb,)), *parts])
            yield from self._db.execute(
                f"SELECT completed_at, id FROM errors INDEXED BY {index}{where.text}"  # noqa: S608 - names of ours
                f" ORDER BY completed_at {direction}, id {direction} LIMIT ?",
                (*where.values, n),
            )

    def _message(self, task_id: bytes) -> str:
        [(state,)] = self._db.execute("SELECT state FROM tasks WHERE id = ?", (task_id,))
        return _message_of(state).error_message

    # -- tasks --------------------------------------------------------------------------------

    def tasks(self, limit: int) -> FailedTasks:
        if self._nothing:
            return FailedTasks((), 0)
        source, where = self._source(), self._where()
        [(total,)] = self._db.execute(f"SELECT count(*) FROM {source}{where.text}", where.values)  # noqa: S608 - names of ours
        return FailedTasks(self._first(limit, where), total)

    def further(self, limit: int, further: Further) -> tuple[Failed, ...]:
        if self._nothing:
            return ()
        after = (further.after.failed_at, UUID(further.after.id).bytes)
        passed = [Sql("NOT (task_type = ? AND priority = ?)", queue) for queue in further.without]
        return self._first(limit, self._where(Sql("(completed_at, id) > (?, ?)", after), *passed))

    def _first(self, limit: int, where: Sql) -> tuple[Failed, ...]:
        found = self._db.execute(
            "SELECT id, version, fingerprint, failed_at, task_type, priority FROM"  # noqa: S608 - names of ours
            f" (SELECT id, completed_at AS failed_at, fingerprint FROM {self._source()}{where.text}"
            " ORDER BY completed_at, id LIMIT ?) CROSS JOIN tasks USING (id)",
            (*where.values, limit),
        )
        return tuple(
            Failed(str(UUID(bytes=task_id)), version, fingerprint, failed_at, (task_type, priority))
            for task_id, version, fingerprint, failed_at, task_type, priority in found
        )

    def _where(self, *more: Sql) -> Sql:
        parts = [Sql("fingerprint IS NOT NULL"), *self._named, *self._times, *more]
        return all_of(parts if self._kbs is None else [one_of("kb", self._kbs), *parts])

    def _source(self) -> str:
        """The index that leaves the fewest failures, by what is asked for."""
        if self._fingerprints is not None:
            return "errors INDEXED BY errors_fingerprint"
        if self._kbs is not None:
            return "errors INDEXED BY errors_kb"
        return f"errors INDEXED BY {'errors_failed' if self._by_time else 'errors_fingerprint'}"


def _fingerprints(wanted: tuple[bytes, ...]) -> Sql:
    return one_of("fingerprint", wanted)


def _first(column: str, grouped: str) -> str:
    """Any of a column that is the same throughout a group."""
    return f"min({column})" if grouped else column


def _names(db: sqlite3.Connection, numbers: Numbers) -> dict[int, str]:
    wanted = one_of("no", numbers)
    found = db.execute(f"SELECT no, name FROM names WHERE {wanted.text}", wanted.values)  # noqa: S608 - question marks only
    return dict(found.fetchall())
