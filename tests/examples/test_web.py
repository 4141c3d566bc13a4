"""The example's web service, against a running ledgerq: what users of both would write."""

import base64
import json
import os
import sysconfig
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from standardwebhooks.webhooks import Webhook

from api.testing import InlineService
from examples.knowledge_service import handlers
from examples.knowledge_service.web import CALLBACK_BYTES_MAX, Options, create_app

SECRET = "whsec_" + base64.b64encode(os.urandom(32)).decode()
HEAPQ = Path(sysconfig.get_path("stdlib"), "heapq.py").read_bytes()
DOCUMENTS = "/api/v1/knowledge-bases/demo/documents"
SOME_ID = "01a21538-4858-7584-a596-993b2f4a5c6d"


@pytest.fixture
def ledgerq_handlers() -> list[str]:
    """Those of the example, for the fixture `ledgerq`."""
    return [handlers.__name__]


@pytest.fixture
async def web(
    ledgerq: InlineService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx2.AsyncClient]:
    """A caller of the web service, whose database the handlers write to as well."""
    database = str(tmp_path / "knowledge.db")
    monkeypatch.setenv(handlers.DATABASE, database)
    monkeypatch.setenv("LEDGERQ_DATA_DIR", str(tmp_path / "ledgerq"))
    app = create_app(Options(ledgerq.url, "http://127.0.0.1:8082", database, (SECRET,)))
    transport = httpx2.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://knowledge") as client,
    ):
        yield client


def signed(body: bytes, secret: str = SECRET) -> dict[str, str]:
    now = datetime.now(UTC)
    return {
        "webhook-id": "one",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign("one", now, body.decode()),
    }


def told(task_id: str = SOME_ID, *, status: str = "completed", minutes: int = 0) -> bytes:
    """The body of a callback, of an end so many minutes later."""
    at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
    document: dict[str, Any] = {
        "task_id": task_id,
        "status": status,
        "result": {"chunks": 3},
        "error_message": "",
        "completed_at": at.isoformat(),
        "kb_id": "demo",
        "task_type": "document_processing",
    }
    return json.dumps(document).encode()


async def call_back(web: httpx2.AsyncClient, body: bytes, **headers: str) -> httpx2.Response:
    task_id = json.loads(body)["task_id"]
    path = f"/api/v1/tasks/{task_id}/callback"
    return await web.post(path, content=body, headers=headers or signed(body))


async def uploaded(web: httpx2.AsyncClient, **headers: str) -> str:
    answer = await web.post(
        DOCUMENTS, params={"filename": "heapq.py"}, content=HEAPQ, headers=headers
    )
    assert answer.status_code == 202, answer.text
    return answer.json()["task_id"]


async def test_an_uploaded_file_can_be_searched_for_once_it_is_indexed(
    web: httpx2.AsyncClient, ledgerq: InlineService
):
    await uploaded(web)
    await ledgerq.run_until_finished()
    answer = await web.post("/api/v1/enhance", json={"kb_ids": ["demo", "other"]})
    assert len(answer.json()["task_ids"]) == 2
    await ledgerq.run_until_finished()

    found = await web.get("/api/v1/search", params={"kb_id": "demo", "q": '"priority queue"'})

    assert [hit["path"] for hit in found.json()["hits"]] == ["heapq.py"]


async def test_the_status_is_ledgerqs_until_the_callback_has_come(
    web: httpx2.AsyncClient, ledgerq: InlineService
):
    task_id = await uploaded(web)
    before = (await web.get(f"/api/v1/documents/{task_id}")).json()
    await ledgerq.run_until_finished()
    done = (await web.get(f"/api/v1/documents/{task_id}")).json()
    assert (await call_back(web, told(task_id))).status_code == 204
    after = (await web.get(f"/api/v1/documents/{task_id}")).json()

    assert (before["name"], before["status"], before["progress"]) == ("heapq.py", "queued", 0)
    assert (done["status"], done["progress"], done["finished_at"]) == ("completed", 100, None)
    assert (after["status"], after["result"], after["callbacks"]) == ("completed", {"chunks": 3}, 1)


async def test_a_file_sent_again_under_its_key_is_the_same_task(web: httpx2.AsyncClient):
    key = {"idempotency-key": "one"}

    assert await uploaded(web, **key) == await uploaded(web, **key)
    assert (await web.get(DOCUMENTS)).json()["counts"] == {"accepted": 1}


async def test_a_callback_may_come_first_and_twice(web: httpx2.AsyncClient):
    for _ in range(2):
        assert (await call_back(web, told())).status_code == 204

    [job] = (await web.get(DOCUMENTS)).json()["jobs"]
    assert (job["task_id"], job["status"], job["callbacks"]) == (SOME_ID, "completed", 2)
    assert job["finished_at"].endswith("Z")
    assert job["created_at"].endswith("Z")


async def test_of_two_ends_the_later_one_counts_in_whatever_order_they_come(
    web: httpx2.AsyncClient,
):
    await call_back(web, told(status="completed", minutes=5))
    await call_back(web, told(status="failed", minutes=1))

    [job] = (await web.get(DOCUMENTS)).json()["jobs"]
    assert job["status"] == "completed"


@pytest.mark.parametrize(
    "headers", [{"x": "unsigned"}, signed(told(), "whsec_" + base64.b64encode(b"0" * 32).decode())]
)
async def test_a_callback_that_ledgerq_has_not_signed_is_not_believed(
    web: httpx2.AsyncClient, headers: dict[str, str]
):
    answer = await call_back(web, told(), **headers)

    assert answer.status_code == 400
    assert (await web.get(DOCUMENTS)).json()["jobs"] == []


async def test_what_cannot_be_meant_is_said_to_be_wrong(web: httpx2.AsyncClient):
    for answer, status, word in (
        (await web.post(DOCUMENTS, content=b"x"), 400, "filename"),
        (await web.post(DOCUMENTS + "?filename=a%5Cb.md", content=b"x"), 400, "filename"),
        (await web.post(DOCUMENTS + "?filename=a%00b.md", content=b"x"), 400, "filename"),
        (await web.post("/api/v1/enhance", content=b"["), 400, "kb_ids"),
        (await web.post("/api/v1/enhance", content=b" " * 300_000), 413, "bytes"),
        (await web.post("/api/v1/enhance", json={"kb_ids": []}), 400, "kb_ids"),
        (await web.post("/api/v1/enhance", json={"kb_ids": [""]}), 400, "kb_id"),
        (await web.get(f"/api/v1/documents/{SOME_ID}"), 404, "no such document"),
        (await web.get("/api/v1/nothing"), 404, "Not Found"),
        (await web.get("/api/v1/enhance"), 405, "Method Not Allowed"),
        (
            await web.post(
                f"/api/v1/tasks/{SOME_ID}/callback", content=b" " * (CALLBACK_BYTES_MAX + 1)
            ),
            413,
            "bytes",
        ),
    ):
        assert answer.status_code == status, answer.text
        assert word in answer.json()["error"]


def test_where_it_listens_is_where_it_is_called_back():
    env = {"LEDGERQ_CALLBACK_SECRETS": f"{SECRET},"}
    assert Options.of(env, "http://127.0.0.1:9000").public_url == "http://127.0.0.1:9000"
    named = env | {"KNOWLEDGE_URL": "http://knowledge:80"}
    assert Options.of(named, "http://127.0.0.1:9000").public_url == "http://knowledge:80"


def test_without_a_secret_it_does_not_start():
    with pytest.raises(ValueError, match="LEDGERQ_CALLBACK_SECRETS"):
        Options.of({"LEDGERQ_CALLBACK_SECRETS": ""}, "http://127.0.0.1:8082")
