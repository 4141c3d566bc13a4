"""The example's page in a real browser."""

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
import uvicorn

from api.server import bind
from api.testing import InlineService
from examples.knowledge_service import handlers
from examples.knowledge_service.web import Options, create_app
from tests.browsers import needs_chromium, new_page

if TYPE_CHECKING:
    from playwright.async_api import FilePayload, WebSocketRoute

PATIENCE_MS: Final = 20_000

pytestmark = [
    needs_chromium,
    pytest.mark.timeout(90),
]


@pytest.fixture
def ledgerq_handlers() -> list[str]:
    """Those of the example, for the fixture `ledgerq`."""
    return [handlers.__name__]


@pytest.fixture
async def url(
    ledgerq: InlineService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[str]:
    """Where the web service listens."""
    database = str(tmp_path / "knowledge.db")
    monkeypatch.setenv(handlers.DATABASE, database)
    secret = "whsec_" + base64.b64encode(os.urandom(32)).decode()
    with bind("127.0.0.1", 0) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        app = create_app(Options(ledgerq.url, url, database, (secret,)))
        server = uvicorn.Server(uvicorn.Config(app, ws="none", log_config=None))
        running = asyncio.create_task(server.serve([listener]))
        yield url
        server.should_exit = True
        async with asyncio.timeout(20):
            await running


async def test_a_file_that_is_refused_keeps_no_other_from_being_uploaded(url: str):
    files: list[FilePayload] = [
        {"name": "empty.md", "mimeType": "text/markdown", "buffer": b""},
        {"name": "good.md", "mimeType": "text/markdown", "buffer": b"# Hello"},
    ]
    async with new_page(PATIENCE_MS) as page:
        # The page is not of an origin that may watch: its feed is silent, rather than refused.
        await page.route_web_socket("**/ws/tasks*", lambda _: None)
        await page.goto(url, wait_until="networkidle")
        await page.set_input_files("#files", files)
        await page.click("#upload button >> nth=0")
        await page.wait_for_selector("#error:not(:empty)")
        refused = await page.inner_text("#error")
        rows = await page.locator("#jobs tr td:first-child").all_inner_texts()

    assert refused.startswith("empty.md: the file 'empty.md' is empty")
    assert rows == ["good.md"]


async def test_what_is_long_fits_into_a_narrow_window(url: str, ledgerq: InlineService):
    kb = f"{url}/api/v1/knowledge-bases/demo/documents"
    async with httpx2.AsyncClient() as client:
        await client.post(f"{kb}?filename={'long' * 50}.md", content=b"# Hello")
        await ledgerq.run_until_finished()
        await client.post(f"{url}/api/v1/enhance", json={"kb_ids": ["demo"]})
        await ledgerq.run_until_finished()
    async with new_page(PATIENCE_MS) as page:
        await page.route_web_socket("**/ws/tasks*", lambda _: None)
        await page.set_viewport_size({"width": 360, "height": 800})
        await page.goto(url, wait_until="networkidle")
        await page.fill("#query", "hello")
        await page.click("#search button")
        await page.wait_for_selector("#hits li")
        width = await page.evaluate("document.documentElement.scrollWidth")

    assert width == 360


async def test_without_ledgerq_the_page_shows_what_the_service_knows(url: str):
    kb = f"{url}/api/v1/knowledge-bases/demo/documents"
    async with httpx2.AsyncClient() as client:
        await client.post(f"{kb}?filename=known.md", content=b"# Hello")
    async with new_page(PATIENCE_MS) as page:
        await page.route("**/static/task-monitor.js", lambda route: route.abort())
        await page.goto(url, wait_until="networkidle")
        await page.wait_for_selector("#jobs tr")
        rows = await page.locator("#jobs tr td:first-child").all_inner_texts()
        connection = await page.inner_text("#connection")

    assert rows == ["known.md"]
    assert connection.startswith("not live")


async def test_what_has_ended_is_watched_no_more(url: str):
    """A connection watches a thousand tasks at most, and a page may hand over more."""

    def end(socket: "WebSocketRoute") -> None:
        task_id = parse_qs(urlsplit(socket.url).query)["task_id"][0]
        update = {"type": "task_update", "task_id": task_id, "status": "completed"}
        socket.send(json.dumps(update | {"position": "0:1-0"}))

    async with new_page(PATIENCE_MS) as page:
        await page.route_web_socket("**/ws/tasks*", end)
        await page.goto(url, wait_until="networkidle")
        await page.set_input_files(
            "#files", [{"name": "a.md", "mimeType": "text/markdown", "buffer": b"# Hello"}]
        )
        await page.click("#upload button >> nth=0")
        await page.wait_for_selector("#jobs .completed")
        await page.wait_for_function("document.getElementById('connection').textContent === ''")
