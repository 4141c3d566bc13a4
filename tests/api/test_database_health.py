"""The service tells how its read model is."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from api import database_health
from ledger.archive.joined import Joined
from ledger.archive.reader import Archive
from ledger.keys import PartitionKeys
from ledger.objects.local_folder import LocalFolder
from ledger.redis_store import RedisStore
from ledger.rejections import Rejection
from ledger.settings import Settings
from projections.model_files import DAMAGE_MET, HINDERED, PROJECTOR_LOCK, ModelFiles
from projections.projector import Projector, ProjectorOptions
from projections.read_model import ReadModel
from tests.api.requests import TASKS, submitted
from tests.archives import archive_of
from tests.read_models import bring_level, read_model


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=str(tmp_path))


@pytest.fixture
def files(settings: Settings) -> ModelFiles:
    return ModelFiles(settings.read_model_folder)


@pytest.fixture
async def model(store: RedisStore, settings: Settings) -> AsyncIterator[ReadModel]:
    """A read model that nobody keeps level but the test."""
    model = await read_model(store, settings.read_model_folder)
    yield model
    model.db.close()


async def database(api: httpx2.AsyncClient, status_code: int) -> dict[str, object]:
    """What /health says of it; other parts are well, and so is the process."""
    answer = await api.get("/health")
    ready = await api.get("/readyz")
    assert (answer.status_code, ready.status_code) == (status_code, 200)
    details = answer.json()["details"]
    assert details["redis"]["status"] == details["queue"]["status"] == "healthy"
    assert answer.json()["status"] == ("healthy" if status_code == 200 else "unhealthy")
    return details["database"]


async def test_a_read_model_that_is_level_is_healthy(
    api: httpx2.AsyncClient, store: RedisStore, model: ReadModel
):
    await submitted(api)
    await bring_level(model, store)

    assert await database(api, 200) == {"status": "healthy", "lag_events": 0}


async def test_a_read_model_that_is_behind_says_by_how_much(
    api: httpx2.AsyncClient, store: RedisStore, model: ReadModel, files: ModelFiles
):
    for _ in range(3):
        await submitted(api)

    with files.lock(PROJECTOR_LOCK):
        assert await database(api, 200) == {"status": "healthy", "lag_events": 3}


async def test_a_read_model_that_nobody_keeps_level_is_a_fault(
    api: httpx2.AsyncClient, model: ReadModel
):
    await submitted(api)

    told = await database(api, 503)

    assert (told["status"], told["lag_events"]) == ("stalled", 1)
    assert "ledgerq projector" in str(told["message"])


async def test_a_projector_that_takes_nothing_for_long_is_a_fault(
    api: httpx2.AsyncClient,
    store: RedisStore,
    model: ReadModel,
    files: ModelFiles,
    monkeypatch: pytest.MonkeyPatch,
):
    await submitted(api)
    with files.lock(PROJECTOR_LOCK):
        assert (await database(api, 200))["status"] == "healthy"
        monkeypatch.setattr(database_health, "STALLED_AFTER_S", 0.0)
        hangs = await database(api, 503)
        await bring_level(model, store)
        level = await database(api, 200)
        monkeypatch.setattr(database_health, "STALLED_AFTER_S", 30.0)
        await submitted(api)
        anew = await database(api, 200)

    assert (hangs["status"], hangs["lag_events"]) == ("stalled", 1)
    assert "taken nothing" in str(hangs["message"])
    assert level == {"status": "healthy", "lag_events": 0}
    assert anew == {"status": "healthy", "lag_events": 1}


async def test_a_node_without_a_read_model_is_not_at_fault(api: httpx2.AsyncClient):
    assert (await database(api, 200))["status"] == "not_used"


async def test_a_read_model_that_is_being_made_is_no_fault(
    api: httpx2.AsyncClient, files: ModelFiles
):
    with files.lock(PROJECTOR_LOCK):
        assert (await database(api, 200))["status"] == "rebuilding"


async def test_a_read_model_that_waits_for_its_archive_is_a_fault_until_that_is_there(
    api: httpx2.AsyncClient, store: RedisStore, files: ModelFiles, tmp_path: Path
):
    for _ in range(3):
        await submitted(api)
    objects, away = tmp_path / "objects", tmp_path / "away"
    await archive_of(store, objects)
    end = (await store.last_position(0)).entry
    await store.client.xtrim(PartitionKeys(0).events, minid=end, approximate=False)
    objects.rename(away)
    objects.symlink_to(objects)
    events = Joined(store, Archive(LocalFolder(objects), "", 1))
    projector = Projector(store, ProjectorOptions(files.folder), events)

    with pytest.raises(Rejection):
        await projector.step()
    waits = await database(api, 503)
    objects.unlink()
    away.rename(objects)
    async with asyncio.timeout(20):
        while files.current() is None:
            await projector.step()
    await projector.step()
    goes_on = await database(api, 200)
    await projector.close()

    assert waits["status"] == "stalled"
    assert "the archive cannot be read" in str(waits["message"])
    assert goes_on == {"status": "healthy", "lag_events": 0}
    assert not (files.folder / HINDERED).exists()


async def test_a_read_model_that_cannot_be_made_is_a_fault_with_the_reason(
    api: httpx2.AsyncClient, store: RedisStore, files: ModelFiles, tmp_path: Path
):
    for _ in range(3):
        await submitted(api)
    end = (await store.last_position(0)).entry
    await store.client.xtrim(PartitionKeys(0).events, minid=end, approximate=False)
    events = Joined(store, Archive(LocalFolder(tmp_path / "objects"), "", 1))
    projector = Projector(store, ProjectorOptions(files.folder), events)

    await projector.step()
    await projector.step()
    told = await database(api, 503)
    await projector.close()

    assert told["status"] == "stalled"
    assert "neither in the stream nor in the archive" in str(told["message"])
    assert "ledgerq verify" in str(told["message"])


async def test_one_that_stays_behind_says_what_hinders_it(
    api: httpx2.AsyncClient,
    model: ReadModel,
    files: ModelFiles,
    monkeypatch: pytest.MonkeyPatch,
):
    await submitted(api)
    files.report_hindrance("the bucket is away")

    with files.lock(PROJECTOR_LOCK):
        at_first = await database(api, 200)
        monkeypatch.setattr(database_health, "STALLED_AFTER_S", 0.0)
        told = await database(api, 503)

    assert at_first["status"] == "healthy"
    assert told["status"] == "stalled"
    assert str(told["message"]).endswith("taken nothing for 0 s: the bucket is away")


async def test_what_one_that_was_killed_left_word_of_is_not_told_of_the_next(
    store: RedisStore, model: ReadModel, files: ModelFiles
):
    files.report_hindrance("the bucket is away")

    projector = Projector(store, ProjectorOptions(files.folder))
    await projector.step()
    await projector.close()

    assert files.hindrance() is None


async def test_a_stopped_projection_is_told_with_the_way_on(
    api: httpx2.AsyncClient, model: ReadModel
):
    model.db.execute(
        "UPDATE projections SET stopped_at = '0:7-0', reason = 'odd; skip it' WHERE name = 'stats'"
    )

    told = await database(api, 503)

    assert told["status"] == "stopped"
    assert told["stopped"] == {"stats": {"at": "0:7-0", "reason": "odd; skip it"}}


async def test_a_damaged_read_model_is_told_and_single_tasks_still_answer(
    api: httpx2.AsyncClient, files: ModelFiles
):
    task = await submitted(api)
    path = files.next_path()
    path.write_bytes(b"this is no database" * 1_000)
    files.install(path)

    told = await database(api, 503)

    assert told["status"] == "damaged"
    assert (await api.get(f"/api/v1/tasks/{task['id']}")).status_code == 200


async def test_damage_that_only_some_lists_meet_is_told_at_once_and_mended(
    api: httpx2.AsyncClient, store: RedisStore, model: ReadModel, files: ModelFiles
):
    for _ in range(50):
        await submitted(api)
    await bring_level(model, store)
    path, projector = files.current(), Projector(store, ProjectorOptions(files.folder))
    assert path is not None
    for _ in range(4):
        await projector.step()  # its look at the start finds the file sound
    assert (await database(api, 200))["status"] == "healthy"
    model.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    [(page,)] = model.db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'tasks'")
    [(size,)] = model.db.execute("PRAGMA page_size")
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)

    refused = await api.get(TASKS)
    told = await database(api, 503)
    scraped = (await api.get("/metrics")).text
    async with asyncio.timeout(20):
        while files.current() == path:
            await projector.step()
    await projector.close()

    assert refused.status_code == 503
    assert told["status"] == "damaged"
    assert "read_model_up 0.0" in scraped
    assert (await api.get(TASKS)).json()["total"] == 50
    assert (await database(api, 200))["status"] == "healthy"
    assert not (files.folder / DAMAGE_MET).exists()


async def test_a_report_of_damage_that_was_none_is_looked_into_and_forgotten(
    api: httpx2.AsyncClient, store: RedisStore, model: ReadModel, files: ModelFiles
):
    path, projector = files.current(), Projector(store, ProjectorOptions(files.folder))
    files.report_damage("a page that was misread")

    told = await database(api, 503)
    async with asyncio.timeout(20):
        while files.damage_met() is not None:
            await projector.step()
    await projector.close()

    assert told["status"] == "damaged"
    assert files.current() == path
    assert (await database(api, 200))["status"] == "healthy"
