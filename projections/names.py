"""The numbers under which the tables know what many rows name: knowledge bases, types, workers."""

import sqlite3
from typing import Final

REMEMBERED_MAX: Final = 20_000


class Names:
    """Of the one process that writes; numbers given out are stored with the next commit."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._known: dict[str, int] = {}
        self._new: dict[str, int] = {}
        self._looked_up: dict[int, str] = {}
        self._last: int = db.execute("SELECT coalesce(max(no), 0) FROM names").fetchone()[0]

    def number(self, name: str) -> int:
        """The number of a name, from now on."""
        known = self._known.get(name)
        return self._find(name) if known is None else known

    def of_worker(self, worker_id: str | None) -> int:
        """The number of a worker; 0 for none."""
        return 0 if worker_id is None else self.number(worker_id)

    def name(self, no: int) -> str:
        """The name under a number that was given out."""
        if no not in self._looked_up:
            row = self._db.execute("SELECT name FROM names WHERE no = ?", (no,)).fetchone()
            given = {new: name for name, new in self._new.items()} if row is None else {no: row[0]}
            self._looked_up[no] = given[no]
        return self._looked_up[no]

    def write(self) -> None:
        """Store the new ones, in the transaction that is open."""
        if self._new:
            rows = [(no, name) for name, no in self._new.items()]
            self._db.executemany("INSERT INTO names (no, name) VALUES (?, ?)", rows)

    def written(self) -> None:
        """The transaction was committed."""
        self._new.clear()
        if len(self._known) > REMEMBERED_MAX:
            self._known.clear()
        if len(self._looked_up) > REMEMBERED_MAX:
            self._looked_up.clear()

    def _find(self, name: str) -> int:
        row = self._db.execute("SELECT no FROM names WHERE name = ?", (name,)).fetchone()
        if row is not None:
            no: int = row[0]
        elif name in self._new:
            no = self._new[name]
        else:
            self._last += 1
            no = self._new[name] = self._last
        self._known[name] = no
        return no
