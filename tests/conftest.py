"""Fixtures that every test may use: a real Valkey, an empty ledger on it, and guards.

After each test the guards look for what it left behind: asyncio tasks that still run, and keys on
the server that no part of `ledger.keys` makes.

Property tests draw few examples, so that the suite stays quick; HYPOTHESIS_PROFILE=thorough draws
many. A failure prints the blob that replays it.

`make test` runs the tests in several processes (pytest-xdist), each with servers of its own: no
test may count on having the machine to itself.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import HealthCheck, settings

from ledger.redis_connection import connect
from ledger.redis_store import RedisStore
from tests.servers import REDIS_BINARY, empty, run_server, valkey_binary

pytest.register_assert_rewrite(
    "tests.given",
    "tests.places",
    "tests.contracts.callbacks",
    "tests.contracts.store",
    "tests.api.conformance",
)

from tests.places import unknown_keys  # noqa: E402 - its asserts are rewritten by the line above

# Deadlines would be timing assertions; machines that run tests are busy.
_everywhere = settings(deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", _everywhere, max_examples=25, stateful_step_count=25)
settings.register_profile("thorough", _everywhere, max_examples=2_000, stateful_step_count=60)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

# A shell ignores ctrl-C for what it starts with `&`, and so would all that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

STRAY_TASK_GRACE_S = 1
TESTS_PER_CORE = 2
"""How many run at once: half of their time is waiting, for processes to start and leases to end."""
AT_ONCE_MAX = 8
"""Each process collects all tests and has servers of its own: more cost more than they bring."""


def pytest_xdist_auto_num_workers() -> int:
    """What `-n auto` means."""
    return min(TESTS_PER_CORE * (os.cpu_count() or 1), AT_ONCE_MAX)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that may take longer than others begin first, lest one of them be left at the end. The
    others come folder by folder, in whatever order, since those of a folder share servers."""
    folders = list(dict.fromkeys(item.path.parent for item in items))
    items.sort(
        key=lambda item: (
            item.get_closest_marker("timeout") is None,
            folders.index(item.path.parent),
        )
    )


@pytest.fixture(autouse=True)
def no_stray_tasks(request: pytest.FixtureRequest) -> None:
    """An async test ends with no task but its own."""
    if request.node.get_closest_marker("asyncio"):
        request.getfixturevalue("_tasks_end_with_the_test")


@pytest.fixture
async def _tasks_end_with_the_test() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    stray = asyncio.all_tasks() - before - {asyncio.current_task()}
    if not stray:
        return
    # One that is just ending may end.
    _, stray = await asyncio.wait(stray, timeout=STRAY_TASK_GRACE_S)
    for task in stray:
        task.cancel()
    assert not stray, f"tasks outlive the test: {stray}"


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    """One Valkey for the whole session; tests that use `ledger_url` get it empty."""
    with run_server(valkey_binary()) as url:
        yield url


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """One Redis 7.0 for the whole session, where it is installed."""
    if REDIS_BINARY is None:
        pytest.skip("there is no redis-server on this machine")
    with run_server(REDIS_BINARY) as url:
        yield url


@pytest.fixture
async def ledger_url(valkey_url: str) -> AsyncIterator[str]:
    """A server without any key or script; afterwards it may hold no key of unknown kind."""
    await empty(valkey_url)
    yield valkey_url
    client = connect(valkey_url, timeout_ms=5_000, connections_max=1)
    unknown = await unknown_keys(client)
    await client.aclose()
    assert not unknown, f"keys that ledger.keys does not make: {unknown}"


@pytest.fixture
async def store(ledger_url: str) -> AsyncIterator[RedisStore]:
    """An empty ledger on a real server."""
    store = await RedisStore.open(ledger_url)
    yield store
    await store.close()
