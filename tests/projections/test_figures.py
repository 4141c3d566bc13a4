"""What estimates are made from, read off a real read model."""

import asyncio
from pathlib import Path

from ledger.commands import CancelTask, CompleteTask, FailAttempt, StartTask
from ledger.events import ErrorKind, Priority
from ledger.memory_store import MemoryStore
from projections.figures import finished_since, read_figures
from tests.contracts.store import RESULT, send, start, submit
from tests.given import T0
from tests.read_models import bring_level, read_model


async def test_figures_are_those_of_each_type(tmp_path: Path):
    now = [T0]

    async def no_wait(_: int) -> None:
        await asyncio.sleep(0)

    store = MemoryStore(lambda: now[0], no_wait)
    model = await read_model(store, tmp_path)
    slow = await start(store, await submit(store, task_type="slow"))
    quick = await start(store, await submit(store, task_type="quick"))
    now[0] += 3
    await send(store, quick, CompleteTask(1, RESULT))
    now[0] += 1_997
    await send(store, slow, FailAttempt(1, "boom", ErrorKind.PERMANENT))
    for priority in (Priority.LOW, Priority.LOW, Priority.HIGH):
        await submit(store, task_type="slow", priority=priority)
    await submit(store, task_type="slow", schedule_for=now[0] + 60_000)
    canceled = await submit(store, task_type="quick")
    await send(store, canceled, StartTask(1, "w1", 1_000))
    await send(store, canceled, CancelTask())
    await bring_level(model, store)

    found = read_figures(model.db)

    assert sorted(found) == ["quick", "slow"]
    assert (found["quick"].ended, sum(found["quick"].sums_ms)) == (1, 3)
    assert (found["slow"].ended, sum(found["slow"].sums_ms)) == (1, 2_000)
    assert {p: n for p, n in found["slow"].waiting.items() if n} == {
        Priority.HIGH: 1,
        Priority.LOW: 2,
    }
    assert not any(found["quick"].waiting.values())
    assert [finished_since(model.db, since) for since in (T0, T0 + 4, T0 + 2_001)] == [2, 1, 0]
    model.db.close()
