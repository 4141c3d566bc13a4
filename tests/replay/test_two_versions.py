"""Two versions of the rules: where they part, and nothing else."""

from pathlib import Path

import pytest

from api.replay.two_versions import DIFFERENCES_MAX, Compared, NoVersion, TwoVersions, load_version
from ledger.commands import CancelTask, CompleteTask, RetryTask
from ledger.store import Position, Store
from tests.contracts.store import RESULT, send, start, submit
from tests.projections.ledgers import Clock, make_store

SAME = """
from ledger.evolve import evolve, initial
"""
FORGETS_PROGRESS = """
from msgspec.structs import replace
from ledger.evolve import evolve as ours, initial
from ledger.events import TaskCompleted

def evolve(task, event, at):
    after = ours(task, event, at)
    if isinstance(event, TaskCompleted):
        after = replace(after, state=replace(after.state, progress=99))
    return after
"""
KNOWS_NO_RETRIES = """
from ledger.evolve import evolve as ours, initial
from ledger.events import TaskRetried

def evolve(task, event, at):
    if isinstance(event, TaskRetried):
        raise RuntimeError("what is that?")
    return ours(task, event, at)
"""
ODD = """
def evolve(*_): ...

class Meta(type):
    def __eq__(cls, other): raise RuntimeError("not to be compared")
    version = property(lambda cls: {}["none"])

class Odd(Exception, metaclass=Meta):
    def __repr__(self): raise ValueError("not to be shown")
"""


async def compared(store: Store, folder: Path, source: str) -> Compared:
    path = folder / "other.py"
    path.write_text(source)
    versions = TwoVersions(load_version(str(path)), store.history)
    await versions.take(await store.events_after(Position(0, "0-0"), 10_000, 0))
    return versions.found


async def test_the_same_rules_part_nowhere(tmp_path: Path):
    store = make_store(1, Clock())
    await send(store, await send(store, await submit(store), CancelTask()), RetryTask())

    found = await compared(store, tmp_path, SAME)

    assert found == Compared(3, 0, ())


async def test_the_event_is_named_after_which_a_task_is_another_one(tmp_path: Path):
    store = make_store(1, Clock())
    await submit(store)
    task = await send(store, await start(store, await submit(store)), CompleteTask(1, RESULT))

    found = await compared(store, tmp_path, FORGETS_PROGRESS)

    [difference] = found.differences
    assert (found.events, found.tasks) == (4, 1)
    assert (difference.task_id, difference.type) == (task.id, "TaskCompleted")
    assert difference.position == str((await store.history(task.id))[-1].position)
    assert difference.ours["state"]["progress"] == 100
    assert difference.theirs["state"]["progress"] == 99


async def test_an_event_that_one_version_refuses_is_where_they_part(tmp_path: Path):
    store = make_store(1, Clock())
    await send(store, await send(store, await submit(store), CancelTask()), RetryTask())

    found = await compared(store, tmp_path, KNOWS_NO_RETRIES)

    [difference] = found.differences
    assert difference.theirs == {"error": "RuntimeError('what is that?')"}
    assert difference.ours["state"]["status"] == "queued"


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("def initial(*_): raise SystemExit('stop')", "SystemExit('stop')"),
        ("def initial(*_): raise Odd", "Odd"),
        ("def initial(*_): return Odd", "no task with a version and a state: KeyError('none')"),
    ],
)
async def test_whatever_a_version_does_is_a_difference(tmp_path: Path, source: str, told: str):
    store = make_store(1, Clock())
    await submit(store)

    found = await compared(store, tmp_path, f"{ODD}\n{source}\n")

    [difference] = found.differences
    assert difference.theirs == {"error": told}


async def test_no_more_than_a_bounded_number_is_told(tmp_path: Path):
    store = make_store(1, Clock())
    for _ in range(DIFFERENCES_MAX + 5):
        await send(store, await start(store, await submit(store)), CompleteTask(1, RESULT))

    found = await compared(store, tmp_path, FORGETS_PROGRESS)

    assert found.tasks == DIFFERENCES_MAX + 5
    assert len(found.differences) == DIFFERENCES_MAX


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("x =", "cannot be loaded"),
        ("import sys; sys.exit(0)", "loaded: SystemExit"),
        ("def initial(*_): ...", "has no function evolve"),
    ],
)
def test_a_module_that_is_no_version_is_refused(tmp_path: Path, source: str, reason: str):
    path = tmp_path / "other.py"
    path.write_text(source)

    with pytest.raises(NoVersion, match=reason):
        load_version(str(path))
    with pytest.raises(NoVersion, match="cannot be loaded"):
        load_version("there.is.no.such_module")
