"""GET /api/v1/tasks/{id}/proof."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from api import proofs
from api.app import App
from ledger.archive.checkpoint import origin_of
from ledger.archive.keys import KeyFile
from ledger.archive.notes import Verifier
from ledger.archive.proof import read_proof
from ledger.archive.proof_check import check_proof
from ledger.archive.reader import log_prefix
from ledger.identity import partition_of
from ledger.redis_store import RedisStore
from ledger.settings import Settings
from tests.api.requests import submitted
from tests.ledger.archive.proving import seal_all


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=str(tmp_path))


@pytest.fixture
async def task_id(api: httpx2.AsyncClient) -> str:
    return (await submitted(api))["id"]


class Archived:
    """Seals what the ledger has, as an archiver would."""

    def __init__(self, app: App, store: RedisStore, folder: Path) -> None:
        self._app = app
        self._store = store
        self._key_file = KeyFile(folder / "archive.key")

    async def seal(self) -> None:
        await seal_all(self._store, self._app.uploads.objects, self._key_file)

    async def key(self, task_id: str) -> Verifier:
        partition = partition_of(task_id, self._store.partitions)
        origin = origin_of(await self._store.epoch(), partition)
        return self._key_file.keys().verifiers(origin)[-1]


@pytest.fixture
async def archived(app: App, store: RedisStore, tmp_path: Path) -> AsyncIterator[Archived]:
    yield Archived(app, store, tmp_path)


async def test_a_sealed_task_is_proved(
    api: httpx2.AsyncClient, archived: Archived, task_id: str
) -> None:
    await api.delete(f"/api/v1/tasks/{task_id}", headers={"X-Actor": "ada"})
    await archived.seal()

    answer = await api.get(f"/api/v1/tasks/{task_id}/proof")

    assert answer.status_code == 200
    shown = check_proof(read_proof(answer.content), [await archived.key(task_id)])
    assert shown.task_id == task_id
    assert [leaf.type for leaf in shown.events] == ["TaskSubmitted", "TaskCanceled"]
    assert b'"actor":"ada"' in shown.events[1].meta


async def test_what_is_not_sealed_yet_is_asked_for_again_later(
    api: httpx2.AsyncClient, archived: Archived, task_id: str
) -> None:
    never = await api.get(f"/api/v1/tasks/{task_id}/proof")
    await archived.seal()
    await api.delete(f"/api/v1/tasks/{task_id}")
    partly = await api.get(f"/api/v1/tasks/{task_id}/proof")

    for answer, sealed in ((never, 0), (partly, 1)):
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert answer.json()["code"] == "NOT_SEALED"
        assert answer.json()["details"]["sealed_version"] == sealed
        assert "ask again" in answer.json()["message"]


@pytest.mark.parametrize("unknown", ["0193b0c2-7d5e-7e10-8a51-3d0f6f2c9a11", "x", "system"])
async def test_there_is_no_proof_of_a_task_that_is_not(
    api: httpx2.AsyncClient, archived: Archived, task_id: str, unknown: str
) -> None:
    await archived.seal()

    answer = await api.get(f"/api/v1/tasks/{unknown}/proof")

    assert (answer.status_code, answer.json()["code"]) == (404, "TASK_NOT_FOUND")


async def test_a_damaged_archive_proves_nothing(
    api: httpx2.AsyncClient,
    app: App,
    store: RedisStore,
    archived: Archived,
    task_id: str,
) -> None:
    await archived.seal()
    prefix = log_prefix(await store.epoch(), partition_of(task_id, store.partitions))
    await app.uploads.objects.write(f"{prefix}tile/entries/000.p/1", bytes(32))

    answer = await api.get(f"/api/v1/tasks/{task_id}/proof")

    assert (answer.status_code, answer.json()["code"]) == (503, "SERVICE_UNAVAILABLE")
    assert "the archive cannot prove it" in answer.json()["message"]


async def test_only_so_many_proofs_are_made_at_once(
    api: httpx2.AsyncClient, archived: Archived, task_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await archived.seal()
    monkeypatch.setattr(proofs, "PROOFS_MAX", 0)

    answer = await api.get(f"/api/v1/tasks/{task_id}/proof")

    assert (answer.status_code, answer.json()["code"]) == (503, "SERVICE_UNAVAILABLE")
