"""The sweep: objects that came to no task go, and no others."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from consumers.meters import Meter
from consumers.orphans import Orphans, oldest_upload
from ledger.commands import SubmitTask
from ledger.events import Priority, TaskSubmitted
from ledger.keys import PartitionKeys
from ledger.objects import ObjectStoreError, open_objects, upload_key
from ledger.objects.local_folder import LocalFolder
from ledger.redis_store import RedisStore
from ledger.settings import Settings
from ledger.transact import transact

TASK: Final = "0193b9e0-5c31-7cc4-9f6e-3f0d3f0e7a11"
BOUND: Final = timedelta(hours=3)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=str(tmp_path))


async def stored(
    store: RedisStore, settings: Settings, upload: str, age: timedelta, epoch: str = ""
) -> Path:
    """An object of that age, named after TASK."""
    modified = datetime.now(UTC) - age
    epoch = epoch or await store.epoch()
    key = upload_key(epoch, modified.date(), TASK, upload, "a")
    path = Path(settings.data_dir) / "objects" / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    os.utime(path, (modified.timestamp(), modified.timestamp()))
    return path


def key_of(settings: Settings, path: Path) -> str:
    return str(path.relative_to(Path(settings.data_dir) / "objects"))


async def submitted(store: RedisStore, task_id: str, payload: object) -> None:
    raw = msgspec.Raw(msgspec.json.encode(payload))
    submission = TaskSubmitted("document_processing", "kb-1", raw, Priority.NORMAL, 3, 300)
    await transact(store, task_id, SubmitTask(submission))


def sweep(store: RedisStore, settings: Settings, meter: Meter | None = None) -> Orphans:
    return Orphans(store, open_objects(settings), meter or Meter(), older_than=BOUND)


async def test_an_old_object_without_a_task_is_removed(store: RedisStore, settings: Settings):
    meter = Meter()
    orphan = await stored(store, settings, "0" * 8, timedelta(hours=4))

    await sweep(store, settings, meter).step()

    assert not orphan.exists()
    assert meter.meters.orphans_removed == 1


async def test_an_object_that_its_task_names_stays(store: RedisStore, settings: Settings):
    path = await stored(store, settings, "0" * 8, timedelta(hours=4))
    await submitted(store, TASK, {"file_path": key_of(settings, path), "more": [1]})

    await sweep(store, settings).step()

    assert path.exists()


@pytest.mark.parametrize("payload", [{}, {"file_path": "another"}, {"file_path": 1}])
async def test_an_object_is_not_its_tasks_because_of_the_id_alone(
    store: RedisStore, settings: Settings, payload: object
):
    path = await stored(store, settings, "0" * 8, timedelta(hours=4))
    await submitted(store, TASK, payload)

    await sweep(store, settings).step()

    assert not path.exists()


async def test_what_an_upload_may_still_be_at_stays(store: RedisStore, settings: Settings):
    path = await stored(store, settings, "0" * 8, timedelta(hours=2))

    await sweep(store, settings).step()

    assert path.exists()


async def test_files_that_are_no_uploads_are_left_alone(store: RedisStore, settings: Settings):
    path = await stored(store, settings, "0" * 8, timedelta(hours=4))
    other = path.rename(path.with_name("mine.txt"))

    await sweep(store, settings).step()

    assert other.exists()


async def test_many_objects_are_looked_at_in_pages(
    store: RedisStore, settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("consumers.orphans.LOADS_MAX", 2)
    paths = [await stored(store, settings, f"{n:08x}", timedelta(hours=4)) for n in range(5)]
    await submitted(store, TASK, {"file_path": key_of(settings, paths[2])})

    await sweep(store, settings).step()

    assert [path for path in paths if path.exists()] == [paths[2]]


async def test_what_was_looked_at_once_is_not_asked_for_again(
    store: RedisStore, settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    path = await stored(store, settings, "0" * 8, timedelta(hours=4))
    await submitted(store, TASK, {"file_path": key_of(settings, path)})
    orphans = sweep(store, settings)
    await orphans.step()
    asked: list[str] = []
    monkeypatch.setattr(store, "load", asked.append)

    await orphans.step()

    assert asked == []


async def test_the_files_of_another_ledger_are_left_alone(store: RedisStore, settings: Settings):
    path = await stored(store, settings, "0" * 8, timedelta(hours=4), epoch="5eed" * 8)

    await sweep(store, settings).step()

    assert path.exists()


async def test_nothing_is_removed_when_another_ledger_took_the_place_of_ours(
    store: RedisStore, settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    path = await stored(store, settings, "0" * 8, timedelta(hours=4))
    await submitted(store, TASK, {"file_path": key_of(settings, path)})
    client: Any = store.client

    async def of_an_empty_server(_task_id: str) -> None:
        await client.hset("{ledgerq:0}:ledger", "epoch", "5eed" * 8)

    monkeypatch.setattr(store, "load", of_an_empty_server)
    await sweep(store, settings).step()

    assert path.exists()


@pytest.mark.parametrize(
    "damage", [("HSET", "state", "{"), ("HDEL", "version"), ("SET", "mine")], ids=" ".join
)
async def test_a_task_that_cannot_be_read_keeps_its_file(
    store: RedisStore, settings: Settings, damage: tuple[str, ...]
):
    path = await stored(store, settings, "0" * 8, timedelta(hours=4))
    await submitted(store, TASK, {"file_path": key_of(settings, path)})
    client: Any = store.client
    key = PartitionKeys(store.partition_of(TASK)).task(TASK)
    await client.execute_command(damage[0], key, *damage[1:])

    await sweep(store, settings).step()

    await client.delete(key)
    assert path.exists()


async def test_a_store_that_fails_is_tried_again_the_next_time(
    store: RedisStore, settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    orphan = await stored(store, settings, "0" * 8, timedelta(hours=4))
    orphans = sweep(store, settings)

    def fail(_objects: object, _prefix: str) -> None:
        raise ObjectStoreError("no answer")

    with monkeypatch.context() as failing:
        failing.setattr(LocalFolder, "listed", fail)
        assert await orphans.step() > 0
    await orphans.step()

    assert not orphan.exists()


def test_the_bound_is_longer_than_any_upload():
    settings = Settings(upload_timeout_s=86_400)

    assert oldest_upload(settings) > timedelta(seconds=2 * settings.upload_timeout_s)
