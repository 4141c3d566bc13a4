"""A real browser: Debian's chromium, driven by playwright."""

import contextlib
import shutil
from collections.abc import AsyncGenerator
from typing import Final

import pytest
from playwright.async_api import Page, async_playwright

CHROMIUM: Final = shutil.which("chromium")

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")


@contextlib.asynccontextmanager
async def new_page(patience_ms: int, *arguments: str) -> AsyncGenerator[Page]:
    """An empty page, which waits no longer for anything; its browser ends with it. `arguments` are
    further ones of the browser."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", *arguments]
        )
        try:
            page = await browser.new_page()
            page.set_default_timeout(patience_ms)
            yield page
        finally:
            await browser.close()
