"""A file whose task has left Redis is no orphan."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from consumers.meters import Meter
from consumers.orphans import Orphans
from consumers.roles import make_scheduler
from ledger.objects import open_objects, upload_key
from ledger.settings import Settings
from tests.retention.letting_go import DAY_MS, LaterStore, LettingGo, completed

TASK = "0193b9e0-5c31-7cc4-9f6e-3f0d3f0e7a11"
AGE = timedelta(hours=5)


async def test_a_file_of_an_evicted_task_stays(
    ledger: LettingGo, store: LaterStore, tmp_path: Path
):
    settings = Settings(data_dir=str(tmp_path))
    make_scheduler(settings)(store)
    assert store.past is not None
    modified = datetime.now(UTC) - AGE
    key = upload_key(await store.epoch(), modified.date(), TASK, "u1", "a")
    file = tmp_path / "objects" / key
    write_old(file, modified)
    await completed(store, TASK, payload=msgspec.json.encode({"file_path": key}))
    await ledger.seal()
    ledger.pass_time(2 * DAY_MS)
    await ledger.let_go()
    assert not await store.client.exists(f"{{ledgerq:0}}:task:{TASK}")

    sweeping = Orphans(store, open_objects(settings), Meter(), older_than=timedelta(hours=3))
    await sweeping.step()

    assert file.exists()


def write_old(file: Path, modified: datetime) -> None:
    """A file that was stored then."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"x")
    os.utime(file, (modified.timestamp(), modified.timestamp()))
