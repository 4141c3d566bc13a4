"""Whatever a server says or does while it is no use: each role waits, reports it once, and takes up
its work again by itself, and says that once.

The roles run in the test's own process, each on a store of its own, all behind one proxy.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest

from api.app import create_app
from api.live import Feed, LedgerWentBack
from consumers import Context
from consumers.roles import FollowingRole
from consumers.scheduler import Scheduler
from ledger.redis_store import RedisStore, StoreOptions
from ledger.rejections import Rejection
from ledger.settings import Settings
from ledger.store import Recorded
from ledger.task import Status
from projections.projector import Projector, ProjectorOptions
from tests.api.requests import TASKS, body
from tests.checks import check_ledger
from tests.consumers.working import Logged, handles, signal, submit, until, working
from tests.faults.proxy import Proxy, run_tcp_proxy
from tests.faults.replicas import Pair, replicated
from tests.servers import PERSISTENT, Server, make_server, valkey_binary

IMPATIENT = StoreOptions(timeout_ms=500)
"""A store that notices an outage soon."""

PATIENT = StoreOptions(timeout_ms=15_000)
"""The test's own store, past the proxy: it waits for the server longer than any outage here."""

ROLES = {"worker w1", "scheduler", "projector", "api"}
PATIENCE_S = 40

WRITES_REFUSED = {
    "READONLY": b"READONLY You can't write against a read only replica.",
    "OOM": b"OOM command not allowed when used memory > 'maxmemory'.",
    "MISCONF": b"MISCONF Errors writing to the AOF file: No space left on device",
    "NOREPLICAS": b"NOREPLICAS Not enough good replicas to write.",
}
ALL_REFUSED = {
    "LOADING": b"LOADING Valkey is loading the dataset in memory",
    "BUSY": b"BUSY Valkey is busy running a script.",
    "MASTERDOWN": b"MASTERDOWN Link with MASTER is down.",
    "CLUSTERDOWN": b"CLUSTERDOWN The cluster is down",
    "TRYAGAIN": b"TRYAGAIN Multiple keys request during rehashing of slot",
    "UNBLOCKED": b"UNBLOCKED force unblock from blocking operation, instance state changed",
}


@pytest.fixture(autouse=True)
def _quick_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A role that is stopped waits for the end of its read."""
    monkeypatch.setattr("consumers.claiming.READY_WAIT_MS", 100)
    monkeypatch.setattr("projections.projector.READ_WAIT_MS", 100)


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that keeps what it acknowledged."""
    with make_server(valkey_binary(), *PERSISTENT) as server:
        yield server


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[Proxy]:
    async with run_tcp_proxy(server.url) as proxy:
        yield proxy


async def well(context: Context, _: Any) -> str:
    return "well"


@contextlib.asynccontextmanager
async def opened(url: str, options: StoreOptions = IMPATIENT) -> AsyncGenerator[RedisStore]:
    store = await RedisStore.open(url, options)
    try:
        yield store
    finally:
        await store.close()


class Running:
    """All roles at work; `api` asks them, `store` looks at what they do, `logged` has what they
    said."""

    def __init__(self, api: httpx2.AsyncClient, store: RedisStore, logged: Logged) -> None:
        self.api = api
        self.store = store
        self.logged = logged

    async def do_a_task(self, store: RedisStore | None = None) -> None:
        """Submit one, as soon as that is possible again, and wait for its end."""
        async with asyncio.timeout(PATIENCE_S):
            while (answer := await self._post()).status_code != 201:
                assert answer.status_code == 503, answer.text
                assert answer.headers["retry-after"]
        await until(store or self.store, answer.json()["id"], Status.COMPLETED)

    async def refuse_a_task(self) -> None:
        answer = await self._post()
        assert (answer.status_code, answer.json()["code"]) == (503, "SERVICE_UNAVAILABLE")

    async def _post(self) -> httpx2.Response:
        return await self.api.post(TASKS, json=body(task_type="health_check"))

    async def until_all_said(self, event: str, roles: set[str]) -> None:
        """Return when each of these roles has."""
        async with asyncio.timeout(PATIENCE_S):
            while not roles <= {record["role"] for record in self.logged.of(event)}:
                await self.logged.comes(event, len(self.logged.of(event)) + 1)

    async def until_level(self, store: RedisStore) -> None:
        """Return when the read model has seen all that happened."""
        async with asyncio.timeout(PATIENCE_S):
            while (await self._database()).get("lag_events") != 0:
                await store.events_after(await store.last_position(0), 1, wait_ms=20)

    async def database_status(self) -> str:
        """What /health says of the read model, once the projector has had a look."""
        async with asyncio.timeout(PATIENCE_S):
            while not _is_settled(found := await self._database()):
                await self.store.events_after(await self.store.last_position(0), 1, wait_ms=20)
        return found["status"]

    async def _database(self) -> dict[str, Any]:
        return (await self.api.get("/health")).json()["details"]["database"]

    def assert_said_once(self, roles: set[str]) -> None:
        for event in ("ledger_out_of_reach", "ledger_back"):
            said = sorted(record["role"] for record in self.logged.of(event))
            assert said == sorted(roles), event


@pytest.fixture
def options() -> StoreOptions:
    """How patient the roles are; a test that is about no outage overrides this."""
    return IMPATIENT


@pytest.fixture
async def running(
    server: Server, proxy: Proxy, options: StoreOptions, logged: Logged, tmp_path: Path
) -> AsyncIterator[Running]:
    async with contextlib.AsyncExitStack() as stack:
        seen = await stack.enter_async_context(opened(server.url, PATIENT))
        stores = [await stack.enter_async_context(opened(proxy.url, options)) for _ in range(4)]
        await stack.enter_async_context(
            working(stores[0], handles("health_check", well), worker_id="w1", pending_idle_ms=100)
        )
        scheduler = Scheduler(stores[1], sweep_interval_ms=20).service
        projector = FollowingRole(Projector(stores[2], ProjectorOptions(tmp_path / "model")))
        settings = Settings(
            redis_timeout_ms=options.timeout_ms, read_model_dir=str(tmp_path / "model")
        )
        app = create_app(stores[3], settings)
        transport = httpx2.ASGITransport(app=app)
        api = httpx2.AsyncClient(transport=transport, base_url="http://api")
        async with asyncio.TaskGroup() as group, api:
            for role in (scheduler, projector):
                group.create_task(role.run())
            try:
                yield Running(api, seen, logged)
            finally:
                proxy.tell(None)
                proxy.speak()
                await app.close()
                scheduler.stop()
                projector.stop()


@pytest.mark.parametrize("reply", [*WRITES_REFUSED.values(), *ALL_REFUSED.values()], ids=str)
async def test_an_error_that_passes_is_waited_for(
    reply: bytes, proxy: Proxy, running: Running
) -> None:
    await running.do_a_task()
    proxy.tell(reply)
    await running.refuse_a_task()
    await running.until_all_said("ledger_out_of_reach", ROLES)
    proxy.tell(None)

    await running.do_a_task()
    await running.until_all_said("ledger_back", ROLES)
    running.assert_said_once(ROLES)


async def test_a_server_that_is_restarted_is_waited_for(server: Server, running: Running) -> None:
    await running.do_a_task()
    server.kill()
    await running.refuse_a_task()
    await running.until_all_said("ledger_out_of_reach", ROLES)
    server.start()

    await running.do_a_task()
    await running.until_all_said("ledger_back", ROLES)
    running.assert_said_once(ROLES)


async def test_lines_that_fall_silent_are_given_up(proxy: Proxy, running: Running) -> None:
    await running.do_a_task()
    proxy.fall_silent()
    await running.refuse_a_task()
    await running.until_all_said("ledger_out_of_reach", ROLES)
    proxy.speak()

    await running.do_a_task()
    await running.until_all_said("ledger_back", ROLES)
    running.assert_said_once(ROLES)


async def test_after_a_fault_no_older_line_is_trusted(proxy: Proxy) -> None:
    async with opened(proxy.url) as store:
        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(store.last_position(0))
        proxy.fall_silent()
        with pytest.raises(Rejection):
            await store.last_position(0)
        proxy.speak()

        # Each line that was open would cost a time-out, and its call.
        await asyncio.gather(*(store.last_position(0) for _ in range(20)))


@pytest.mark.parametrize("options", [PATIENT], ids=["patient"])
async def test_a_slow_network_is_slow(proxy: Proxy, running: Running) -> None:
    proxy.slow_down(delay_s=0.02, bytes_per_s=200_000)
    for _ in range(3):
        await running.do_a_task()
    running.assert_said_once(set())


async def test_lines_that_are_cut_again_and_again_are_made_again(
    proxy: Proxy, running: Running
) -> None:
    for _ in range(5):
        await running.do_a_task()
        await proxy.cut()
    await running.do_a_task()


# -- fail-over --------------------------------------------------------------------------------


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    async with replicated() as pair:
        yield pair


class TestFailOver:
    """The address leads to the replica, and the old primary follows it. Nobody cuts the lines that
    lead to the old one."""

    @pytest.fixture
    async def server(self, pair: Pair) -> Server:
        """The one whose word counts afterwards. It knows which ledger this is."""
        async with opened(pair.primary.url):
            await pair.until_level()
        return pair.replica

    @pytest.fixture
    async def proxy(self, pair: Pair) -> AsyncIterator[Proxy]:
        async with run_tcp_proxy(pair.primary.url) as proxy:
            yield proxy

    async def test_all_roles_move_to_the_new_primary(
        self, pair: Pair, proxy: Proxy, running: Running
    ) -> None:
        await running.do_a_task()
        await pair.until_level()
        await pair.take_over()
        proxy.move(pair.replica.url)
        await pair.demote()

        await running.do_a_task()
        async with opened(pair.replica.url) as store:
            await check_ledger(store)
        assert await running.database_status() == "healthy"

    async def test_a_ledger_that_lost_its_newest_events_is_noticed(
        self, pair: Pair, proxy: Proxy, running: Running
    ) -> None:
        await running.do_a_task()
        await pair.until_level()
        await pair.take_over()
        async with opened(pair.primary.url, PATIENT) as old:
            await running.do_a_task(old)
            await running.until_level(old)
        proxy.move(pair.replica.url)
        await pair.demote()

        await running.do_a_task()
        assert await running.database_status() == "stopped"

    async def test_who_follows_it_live_is_told(self, pair: Pair, proxy: Proxy) -> None:
        async with opened(proxy.url) as store:
            await submit(store)
            await pair.until_level()
            await pair.take_over()
            feed, listener = Feed(store, 0), Listener()
            await feed.join(listener)
            await submit(store)
            await signal(listener.heard_some)
            proxy.move(pair.replica.url)
            await proxy.cut()
            await signal(listener.has_failed)
            await feed.close()

        assert isinstance(listener.error, LedgerWentBack)


def _is_settled(database: dict[str, Any]) -> bool:
    """Whether the projector has come to the end of the ledger, or stopped."""
    is_level = database["status"] == "healthy" and database.get("lag_events") == 0
    return is_level or database["status"] == "stopped"


class Listener:
    """Hears of events, and of the end."""

    def __init__(self) -> None:
        self.heard_some, self.has_failed = asyncio.Event(), asyncio.Event()
        self.error: Exception | None = None

    def heard(self, events: Sequence[Recorded]) -> None:
        self.heard_some.set()

    def failed(self, error: Exception) -> None:
        self.error = error
        self.has_failed.set()
