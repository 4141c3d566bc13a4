"""One read model, fed by hand: what it counts and keeps, whatever the batches."""

import sqlite3
from pathlib import Path

import pytest

from ledger.commands import CancelTask, RetryTask
from ledger.memory_store import MemoryStore
from ledger.store import Entry, Position
from projections.fold import Missing
from projections.read_model import BEGINNING, ReadModel
from projections.sqlite import open_writer
from tests.checks import read_all
from tests.contracts.store import send, start, submit
from tests.projections.tables import expected_tables, tables_of
from tests.read_models import bring_level, read_model

START = Position(0, BEGINNING)
EVER_MS = 10**14
STRANGER = [b"x", b"y"]


async def opened_anew(model: ReadModel, store: MemoryStore) -> ReadModel:
    """The same file, with nothing at hand."""
    [(_, _, path)] = model.db.execute("PRAGMA database_list")
    model.db.close()
    return ReadModel(open_writer(Path(path)), partitions=1, epoch=await store.epoch())


async def test_a_finished_task_that_nothing_happened_to_is_not_kept_at_hand(
    memory: MemoryStore, tmp_path: Path
):
    finished = await send(memory, await submit(memory), CancelTask())
    other = await submit(memory)
    model = await opened_anew(await read_model(memory, tmp_path), memory)
    end = await memory.last_position(0)
    [name, fields], *_ = await memory.entries_after(START, 9, 1)
    no_number = [*fields[:5], b"x", *fields[6:]]
    stranger: Entry = (b"%b-1" % end.entry.partition("-")[0].encode(), no_number)
    assert (name, fields[3]) == (b"1-0", finished.id.encode())
    await start(memory, other)
    model.take(0, [stranger, *await memory.entries_after(end, 9, 1)])
    model.commit()
    assert model.evict(EVER_MS) == 1

    await send(memory, finished, RetryTask())
    await bring_level(model, memory)

    found = tables_of(model.db)
    model.db.close()
    assert found == expected_tables(await read_all(memory, 0))


async def test_what_is_remembered_counts_as_gathered(memory: MemoryStore, tmp_path: Path):
    payload = b'{"a": "%b"}' % (b"x" * 10_000)
    task = await send(memory, await submit(memory, payload=payload), CancelTask())
    model = await read_model(memory, tmp_path)
    model.evict(EVER_MS)
    end = await memory.last_position(0)
    await send(memory, task, RetryTask())
    entries = await memory.entries_after(end, 9, 1)

    with pytest.raises(Missing) as missing:
        model.take(0, entries)
    model.remember(missing.value, await memory.history(task.id))
    model.take(0, entries)

    assert model.gathered[1] > len(payload)
    model.db.close()


@pytest.mark.parametrize("size", [1, 2, 3, 100])
async def test_entries_are_counted_alike_in_whatever_batches_they_come(
    memory: MemoryStore, tmp_path: Path, size: int
):
    model = await read_model(memory, tmp_path)
    for _ in range(3):
        await submit(memory)
    first, second, third = await memory.entries_after(START, 9, 1)
    between: list[Entry] = [(b"3-%d" % n, STRANGER) for n in range(1, 4)]
    behind: list[Entry] = [(b"9-%d" % n, STRANGER) for n in range(3)]
    entries = [first, second, *between, third, *behind]
    assert [name for name, _ in (first, second, third)] == [b"1-0", b"3-0", b"5-0"]
    for start_at in range(0, len(entries), size):
        model.take(0, entries[start_at : start_at + size])
        model.commit()
    assert counted(model.db) == ("5-0", 6)

    # After trouble, what lies behind the checkpoint is read again.
    model.take(0, behind)
    await submit(memory)
    [fourth] = await memory.entries_after(Position(0, "5-0"), 9, 1)
    model.take(0, [(b"10-0", fourth[1])])
    model.commit()

    assert counted(model.db) == ("10-0", 10)
    model.db.close()


def counted(db: sqlite3.Connection) -> tuple[str, int]:
    return db.execute("SELECT entry, events FROM checkpoints").fetchone()
