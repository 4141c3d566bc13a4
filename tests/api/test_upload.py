"""POST /api/v1/upload: what comes of files and fields that are as they should be."""

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Final

import httpx2
import pytest

from api.app import create_app
from ledger.objects import objects_folder
from ledger.redis_store import RedisStore
from ledger.settings import Settings
from tests.api.requests import state_of
from tests.api.uploading import KB, field, file, files_in, payload_of, upload
from tests.object_stores import run_s3

PATIENCE_S: Final = 10
SOON_S: Final = 0.2
"""What has not come to its end by then waits for something."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=str(tmp_path))


async def test_a_file_becomes_an_object_and_a_task(api: httpx2.AsyncClient, settings: Settings):
    content = bytes(range(256)) * 4_096

    answer = await upload(api, KB, file(content, "report.pdf"))

    assert answer.status_code == 201, answer.text
    (stored,) = files_in(settings)
    assert stored.read_bytes() == content
    told = answer.json()
    (found,) = told["files"]
    assert told["task_ids"] == [told["task_id"]] == [found["task_id"]]
    assert (told["status"], told["message"]) == ("uploaded", "1 file uploaded")
    assert await payload_of(api, told["task_id"]) == {
        "file_path": str(stored.relative_to(objects_folder(settings) or "")),
        "filename": "report.pdf",
        "size": len(content),
        "content_type": "application/octet-stream",
        "sha256": hashlib.sha256(content).hexdigest(),
    }


async def test_the_task_is_one_of_document_processing_unless_told_otherwise(
    api: httpx2.AsyncClient,
):
    plain = (await upload(api, KB, file())).json()
    fields = {
        "task_type": "batch_processing",
        "priority": "high",
        "max_retries": "7",
        "timeout": "60",
        "schedule_for": "2100-01-01T00:00:00Z",
        "callback_url": "http://localhost:8082/tasks/{task_id}/callback",
        "metadata": '{"from": "me"}',
    }

    answer = await upload(api, KB, file(), *(field(*each) for each in fields.items()))

    assert answer.status_code == 201, answer.text
    told = answer.json()

    task = (await api.get(f"/api/v1/tasks/{plain['task_id']}")).json()
    assert (task["task_type"], task["priority"]) == ("document_processing", "normal")
    task = (await api.get(f"/api/v1/tasks/{told['task_id']}")).json()
    assert (task["task_type"], task["priority"]) == ("batch_processing", "high")
    assert (task["max_retries"], task["timeout"]) == (7, 60)
    assert task["metadata"] == {"from": "me"}
    assert task["schedule_for"] == "2100-01-01T00:00:00.000Z"


@pytest.mark.parametrize("sent", ['{"language": "en", "n": 1e2}', "{}", " { } ", '{"a":{}}'])
async def test_the_payload_is_kept_and_what_the_file_is_joins_it(
    api: httpx2.AsyncClient, sent: str
):
    answer = await upload(api, KB, field("payload", sent), file())

    payload = await payload_of(api, answer.json()["task_id"])

    assert {name: payload[name] for name in json.loads(sent)} == json.loads(sent)
    assert payload["filename"] == "a.txt"


async def test_each_file_gets_a_task_in_the_files_order(
    api: httpx2.AsyncClient, settings: Settings
):
    answer = await upload(api, file(b"1", "1.txt"), KB, file(b"22", "2.txt", "other"))

    told = answer.json()
    assert [each["filename"] for each in told["files"]] == ["1.txt", "2.txt"]
    assert [each["task_id"] for each in told["files"]] == told["task_ids"]
    assert [(await payload_of(api, i))["size"] for i in told["task_ids"]] == [1, 2]
    assert len(files_in(settings)) == 2


async def test_fields_may_come_after_the_files(api: httpx2.AsyncClient):
    answer = await upload(api, file(), field("payload", '{"a": 1}'), KB)

    assert answer.status_code == 201
    assert (await payload_of(api, answer.json()["task_id"]))["a"] == 1


async def test_a_file_that_nobody_chose_in_a_browser_is_none(api: httpx2.AsyncClient):
    answer = await upload(api, KB, file(b"", "", "second"), file())

    assert len(answer.json()["files"]) == 1


async def test_the_same_upload_under_a_key_gives_the_same_task(
    api: httpx2.AsyncClient, settings: Settings
):
    parts = KB, file(b"once"), file(b"twice")
    first = await upload(api, *parts, idempotency_key="k")

    # Fields in another order, as a client is free to send them.
    again = await upload(api, *parts[1:], KB, idempotency_key="k")

    assert (first.status_code, again.status_code) == (201, 200)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json() == first.json()
    assert len(files_in(settings)) == 2


@pytest.mark.parametrize(
    "other",
    [
        (KB, file(b"other")),
        (KB, file(b"once", "b.txt")),
        (KB, file(b"once"), file(b"more")),
        (KB, file(b"once"), field("priority", "low")),
    ],
)
async def test_another_upload_under_the_key_is_a_conflict(
    api: httpx2.AsyncClient,
    store: RedisStore,
    settings: Settings,
    other: tuple[tuple[str, bytes], ...],
):
    await upload(api, KB, file(b"once"), idempotency_key="k")
    before = await state_of(store)

    answer = await upload(api, *other, idempotency_key="k")

    assert answer.status_code == 409
    assert answer.json()["code"] == "IDEMPOTENCY_CONFLICT"
    assert await state_of(store) == before
    (stored,) = files_in(settings)
    assert stored.read_bytes() == b"once"


async def test_the_same_upload_at_the_same_time_leaves_one_object(
    api: httpx2.AsyncClient, settings: Settings
):
    answers = await asyncio.gather(
        *(upload(api, KB, file(b"once"), idempotency_key="k") for _ in range(5))
    )

    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 200, 201]
    (stored,) = files_in(settings)
    assert {a.json()["files"][0]["file_path"].rpartition("/")[2] for a in answers} == {stored.name}


@pytest.mark.parametrize("question", ["epoch", "waiting"])
async def test_closing_waits_for_what_the_ledger_was_asked(
    store: RedisStore, settings: Settings, monkeypatch: pytest.MonkeyPatch, question: str
):
    asked, may_answer = asyncio.Event(), asyncio.Event()
    ask = getattr(store, question)

    async def ask_slowly(*arguments: object) -> object:
        asked.set()
        await may_answer.wait()
        return await ask(*arguments)

    monkeypatch.setattr(store, question, ask_slowly)
    app = create_app(store, settings)
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://api") as api:
        uploading = asyncio.create_task(upload(api, KB, file()))
        async with asyncio.timeout(PATIENCE_S):
            await asked.wait()
        uploading.cancel()
        closing = asyncio.create_task(app.close())
        done, _ = await asyncio.wait([closing], timeout=SOON_S)
        may_answer.set()
        async with asyncio.timeout(PATIENCE_S):
            await closing

    assert not done


async def test_files_go_to_any_s3_endpoint(
    store: RedisStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    content = b"to the cloud" * 100_000
    (tmp_path / "s3").mkdir()
    with run_s3(tmp_path / "s3") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("ledger.objects.bucket.FIRST_PAUSE_S", 0)
        app = create_app(
            store, Settings(data_dir=str(tmp_path / "data"), object_store_url=server.url)
        )
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://api") as api:
            answer = await upload(api, KB, file(content, "cloud.txt"))
            assert answer.status_code == 201, answer.text
            path = answer.json()["files"][0]["file_path"]
            (stored,) = server.files()
            assert str(stored).endswith(f"some/prefix/{path}")
            assert stored.read_bytes() == content

            server.stop()
            refused = await upload(api, KB, file(content))

        assert refused.status_code == 503
        assert refused.json()["message"].startswith("the object store did not take the files")
        assert server.files() == [stored]
        await app.close()
