"""The example's page in a real browser."""

import asyncio
import base64
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import uvicorn

from api.server import bind
from api.testing import InlineService
from examples.knowledge_service import handlers
from examples.knowledge_service.web import Options, create_app
from tests.browsers import needs_chromium, new_page

if TYPE_CHECKING:
    from playwright.async_api import FilePayload

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
async def url(ledgerq: InlineService, tmp_path: Path) -> AsyncIterator[str]:
    """Where the web service listens."""
    secret = "whsec_" + base64.b64encode(os.urandom(32)).decode()
    with bind("127.0.0.1", 0) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        app = create_app(Options(ledgerq.url, url, str(tmp_path / "knowledge.db"), (secret,)))
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
