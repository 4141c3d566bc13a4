"""Is a whole ledger as it must be? Walks every event and compares what they make with what is kept.

counts = await check_ledger(store)
assert counts.finished == counts.tasks == 2_000
"""

from collections import Counter

import msgspec

from ledger.codec import decode_meta
from ledger.evolve import evolve, initial
from ledger.store import Position, Recorded, Store
from ledger.system.evolve import evolve as evolve_system
from ledger.system.state import INITIAL, System
from ledger.task import FINISHED, Status, Task

CHUNK_EVENTS = 1_000


class Counts(msgspec.Struct):
    """What was found in a ledger that is in order."""

    tasks: dict[str, Task]
    """Every task by its id, as its events make it."""
    events: Counter[str]
    """How many events there are of each type."""
    finals: Counter[str]
    """How often each task came to a final state; a task that never did is missing."""
    commits: int
    """How many appends wrote all that."""
    system: System = INITIAL
    """The service's own subject, as its events make it."""

    def in_status(self, status: Status) -> int:
        return sum(task.status is status for task in self.tasks.values())


async def check_ledger(store: Store) -> Counts:
    """Every stored transition is legal, every task's versions are contiguous, each event names the
    one before it, and the fold of the events is the snapshot. Raises AssertionError, or
    IllegalTransition, where it is not so. Nothing may be written meanwhile."""
    counts = Counts({}, Counter(), Counter(), 0)
    commits: set[str] = set()
    for partition in range(store.partitions):
        last_entries: dict[str, str] = {}
        for recorded in await read_all(store, partition):
            _take(counts, recorded, last_entries)
            commits.add(decode_meta(recorded.meta).commit)
    assert await store.load_system() == counts.system, "the system's snapshot is not its fold"
    for task_id, task in counts.tasks.items():
        assert await store.load(task_id) == task, f"the snapshot of {task_id} is not its fold"
    counts.commits = len(commits)
    return counts


async def read_all(store: Store, partition: int) -> list[Recorded]:
    """A partition's whole ledger, oldest first."""
    end, found = await store.last_position(partition), list[Recorded]()
    position = Position(partition, "0-0")
    while position.order < end.order:  # a role may append while we read
        chunk = await store.events_after(position, CHUNK_EVENTS, wait_ms=1)
        assert chunk, f"the ledger ends at {end}, but nothing comes after {position}"
        found += chunk
        position = chunk[-1].position
    return found


def _take(counts: Counts, recorded: Recorded, last_entries: dict[str, str]) -> None:
    where = f"{recorded.type} at {recorded.position}"
    assert recorded.prev == last_entries.get(recorded.task_id, ""), where
    last_entries[recorded.task_id] = recorded.position.entry
    if recorded.of_system:
        _take_of_system(counts, recorded, where)
        return
    task_id, event = recorded.task_id, recorded.event()
    known = counts.tasks.get(task_id)
    assert recorded.version == (1 if known is None else known.version + 1), where
    if known is None:
        task = initial(task_id, event, recorded.at)
    else:
        assert recorded.at >= known.state.updated_at, where
        task = evolve(known, event, recorded.at)
    counts.tasks[task_id] = task
    counts.events[recorded.type] += 1
    if task.status in FINISHED:
        counts.finals[task_id] += 1


def _take_of_system(counts: Counts, recorded: Recorded, where: str) -> None:
    before = counts.system
    assert recorded.version == before.version + 1, where
    assert recorded.at >= before.state.updated_at, where
    by = decode_meta(recorded.meta).actor
    counts.system = evolve_system(before, recorded.system_event(), recorded.at, by)
    counts.events[recorded.type] += 1
