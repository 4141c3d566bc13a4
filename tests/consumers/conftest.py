"""Workers that stop, and give up, sooner than in production; and what they log."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from typing import Any

import pytest
import structlog
import uvloop
from structlog.testing import capture_logs

from tests.consumers.children import Reports
from tests.consumers.working import Logged


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Workers run on uvloop in production; what starts processes is tested on both loops."""
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"uvloop": uvloop.new_event_loop}
    if item.path.name == "test_executors.py":
        loops["asyncio"] = asyncio.new_event_loop
    return loops


@pytest.fixture(autouse=True)
def _quick_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consumers.claiming.READY_WAIT_MS", 50)
    monkeypatch.setattr("consumers.attempt.STOP_GRACE_S", 0.2)


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> Iterator[Logged]:
    """Every log record of the test, which are then not printed."""
    logged = Logged()
    structlog.reset_defaults()  # an earlier test may have configured a level that hides some
    structlog.configure(processors=[logged], cache_logger_on_first_use=False)
    for name, module in list(sys.modules.items()):
        if name.startswith("consumers.") and hasattr(module, "log"):
            # The one it has may hold on to an earlier test's configuration.
            monkeypatch.setattr(module, "log", structlog.get_logger())
    yield logged
    structlog.reset_defaults()


@pytest.fixture
async def reports() -> AsyncGenerator[Reports]:
    """The pipe that a pool's children report on."""
    opened = Reports()
    yield opened
    opened.close()


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    """Every log record of the test, as structlog captures them."""
    with capture_logs() as captured:
        yield captured
