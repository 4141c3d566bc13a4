"""Is the live read model what the ledger makes? Builds another one beside it, and compares."""

import contextlib
import sqlite3
from collections.abc import Callable, Collection

import msgspec

from ledger.store import Events, Position
from projections import sqlite
from projections.compare import Compared, compare
from projections.model_files import ModelFiles
from projections.read_model import VERSIONS, is_current, read_stopped
from projections.rebuild import Rebuild, ends_of
from projections.retention import evicted_before


class CannotCheck(Exception):
    """There is nothing that could be compared; says why, and what to do."""


class Checked(msgspec.Struct, frozen=True):
    """What a check found, at these positions."""

    equal: bool
    positions: list[str]
    events: int
    projections: list[Compared]


async def check(
    files: ModelFiles,
    ledger: Events,
    *,
    projections: Collection[str] = tuple(VERSIONS),
    skipped: Collection[str] = (),
    progress: Callable[[int], None] = lambda events: None,
) -> Checked:
    """Compare the live read model, as it is while it goes on being written, with one that is made
    of the ledger up to the same positions, and removed afterwards. Whoever checks holds the
    REBUILD_LOCK.

    Raises CannotCheck, and as Rebuild's methods.
    """
    path = files.current()
    if path is None or not path.exists():
        raise CannotCheck(f"there is no read model in {files.folder}: `ledgerq rebuild` makes one")
    rebuild = Rebuild(files, ledger, skipped=skipped, progress=progress)
    try:
        with contextlib.closing(sqlite.open_reader(path)) as live:
            _check_comparable(live, projections)
            await rebuild.build(await _ends(live, ledger))
            # From here on the live one stands still, as this connection sees it.
            live.execute("BEGIN")
            ends = await _ends(live, ledger)
            await rebuild.build(ends)
            await rebuild.forget_finished_before(evicted_before(live))
            found = list(compare(live, rebuild.model.db, projections))
        events = rebuild.model.events
    finally:
        rebuild.discard()
    equal = all(each.difference is None for each in found)
    return Checked(equal, [str(Position(*end)) for end in sorted(ends.items())], events, found)


def _check_comparable(live: sqlite3.Connection, projections: Collection[str]) -> None:
    if not is_current(live):
        raise CannotCheck("the read model was made by another version: the projector replaces it")
    all_stopped = read_stopped(live)
    for name, stopped in all_stopped.items():
        # One that stopped together with `tasks` has missed nothing up to where they stopped.
        if name in projections and stopped != all_stopped.get("tasks"):
            raise CannotCheck(f"the projection {name} stopped at {stopped.at}: {stopped.reason}")


async def _ends(live: sqlite3.Connection, ledger: Events) -> dict[int, str]:
    ends = await ends_of(live, ledger)
    if ends is None:
        raise CannotCheck(
            "the read model was made from events that this ledger does not have, or has no"
            " longer: `ledgerq rebuild` makes one of those that it has"
        )
    return ends
