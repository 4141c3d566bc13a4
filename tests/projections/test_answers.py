"""What answers say of the state of the ledger that they show."""

from pathlib import Path

import msgspec
import pytest

from ledger.codec import decode_task
from ledger.memory_store import MemoryStore
from ledger.task import State
from projections import stats
from projections.list_query import Filters
from projections.queries import ReadModels, Wanted
from projections.readers import Readers, Unavailable
from tests.checks import read_all
from tests.contracts.store import submit
from tests.projections.ledgers import Clock, make_store
from tests.projections.test_projector import broken
from tests.projections.watching import projecting
from tests.read_models import read_model


async def test_a_projection_that_stopped_alone_claims_no_more_than_it_saw_in_any_partition(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store = make_store(3, clock)
    models = ReadModels(tmp_path, wait_ms=1)
    async with projecting(store, tmp_path) as watched:
        for breaks in (False, True, False):
            for _ in range(10):
                await submit(store)
            with monkeypatch.context() as patch:
                if breaks:
                    patch.setattr(stats, "write", broken)
                await watched.level()
        ends = {p: await store.last_position(p) for p in range(3)}

        alone = await models.stats(Filters(), Wanted(ends))
        others = await models.queues(Wanted(ends))

    await models.close()
    events = [event for p in range(3) for event in await read_all(store, p)]
    claimed = [e for e in events if e.position.order <= alone.seen[e.position.partition].order]
    assert len(claimed) == alone.found.total == 10
    assert others.seen == tuple(ends.values())


async def test_a_stored_task_that_cannot_be_read_is_trouble_with_the_file(
    memory: MemoryStore, tmp_path: Path
):
    (await read_model(memory, tmp_path)).db.close()
    readers = Readers(tmp_path)

    with pytest.raises(Unavailable, match="damaged"):
        await readers.ask(lambda _: msgspec.json.decode(b"{", type=State))
    with pytest.raises(Unavailable, match="damaged"):
        await readers.ask(lambda _: decode_task("a", 1, b"{}", b"\xff"))
    readers.close()
