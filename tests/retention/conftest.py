"""A ledger that lets go of what is a day old."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from consumers.retention_status import Terms
from tests.retention.letting_go import DAY_MS, LaterStore, LettingGo, opened

TERMS = Terms(events_ms=DAY_MS, tasks_ms=DAY_MS, hold_ms=7 * DAY_MS)


@pytest.fixture
async def store(ledger_url: str) -> AsyncIterator[LaterStore]:
    async for one in opened(ledger_url):
        yield one


@pytest.fixture
def ledger(store: LaterStore, tmp_path: Path) -> LettingGo:
    return LettingGo(store, tmp_path / "objects", TERMS)
