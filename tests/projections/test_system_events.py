"""Events of the service as a whole: every projection counts their positions and folds nothing."""

from pathlib import Path

import pytest

from ledger.codec import Meta
from ledger.commands import CancelTask
from ledger.memory_store import MemoryStore
from ledger.system.commands import PauseQueue, ResumeQueue
from ledger.system.transact import transact_system
from projections.check import check
from tests.contracts.store import send, submit
from tests.projections.test_projector import assert_equals_the_fold
from tests.projections.watching import projecting

META = Meta("ann")


async def test_their_positions_count_and_nothing_is_folded(memory: MemoryStore, tmp_path: Path):
    async with projecting(memory, tmp_path) as watched:
        await transact_system(memory, PauseQueue("mail"), META)
        task = await submit(memory)
        await watched.level()
        await transact_system(memory, ResumeQueue("mail"), META)
        await send(memory, task, CancelTask())
        await transact_system(memory, PauseQueue("mail"), META)
        await watched.level()

        with watched.live() as db:
            [[entry, events]] = db.execute("SELECT entry, events FROM checkpoints")
        assert (entry, events) == ((await memory.last_position(0)).entry, 5)
        await assert_equals_the_fold(watched, memory)
        assert (await check(watched.files, memory)).equal


async def test_those_of_a_later_version_stop_nothing(memory: MemoryStore, tmp_path: Path):
    async with projecting(memory, tmp_path) as watched:
        await transact_system(memory, PauseQueue("mail"), META)
        events = memory.contents[0].events
        events[-1] = events[-1].__class__(
            events[-1].position, "QueueFrozen", "system", 1, 1, b'{"a":1}', b"{}", ""
        )
        await submit(memory)
        await watched.level()

        await assert_equals_the_fold(watched, memory)


@pytest.mark.parametrize("kind", ["QueuePaused", "TaskCanceled", "TaskSubmitted"])
async def test_one_that_is_left_out_is_no_tasks_either(
    memory: MemoryStore, tmp_path: Path, kind: str
):
    done = await transact_system(memory, PauseQueue("mail"), META)
    events = memory.contents[0].events
    recorded = events[-1]
    events[-1] = recorded.__class__(
        recorded.position, kind, "system", 1, recorded.at, recorded.data, recorded.meta, ""
    )
    await submit(memory)

    async with projecting(memory, tmp_path, skip_events=(str(done.position),)) as watched:
        await watched.level()
        await assert_equals_the_fold(watched, memory)
