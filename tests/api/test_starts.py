"""When running attempts began, looked up in the read model."""

import contextlib
import sqlite3
from pathlib import Path

import httpx2
import pytest

from ledger.redis_store import RedisStore
from ledger.settings import Settings
from ledger.workers import WorkerReport, WorkerSeen, WorkerState
from projections.starts import Start, read_starts, running
from tests.api.reading import Projection
from tests.api.requests import complete, start, submitted


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(read_model_dir=str(tmp_path / "read-model"))


async def test_only_tasks_that_are_being_processed_have_a_start(
    api: httpx2.AsyncClient, store: RedisStore, projection: Projection
):
    waits, runs, done = [(await submitted(api))["id"] for _ in range(3)]
    await start(store, runs)
    await complete(store, done)
    await projection.catch_up()
    task = await store.load(runs)
    assert task is not None
    assert task.state.started_at is not None

    with contextlib.closing(sqlite3.connect(projection.path)) as db:
        found = read_starts(db, [waits, runs, done, "0" * 8 + "-0000-7000-8000-" + "0" * 12])

    assert found == {runs: Start(task.submission.task_type, task.state.started_at)}


def test_what_workers_say_they_run_is_looked_up_if_it_can_be_a_task():
    def seen(name: str, state: WorkerState, *ids: str) -> WorkerSeen:
        return WorkerSeen(WorkerReport(name, "h", 1, ("work",), 4, 1, 0, task_ids=ids), 0, state)

    one, two = (f"01890a5d-ac96-774b-bcce-b302099a800{n}" for n in range(2))

    assert running(
        [
            seen("w1", WorkerState.BUSY, one, "no task id"),
            seen("w2", WorkerState.LOST, two),
        ]
    ) == [one]
