"""What is to be told survives those who tell it, and the server it stands on."""

import asyncio
import signal
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from aiohttp import web

from ledger.redis_store import RedisStore, StoreOptions
from ledger.settings import Settings
from tests.callbacks.receiving import canceled, notifying, receiving, settled, tried
from tests.consumers.role_process import RoleProcess, role_process
from tests.servers import PERSISTENT, make_server, valkey_binary


@contextmanager
def notifier_process(folder: Path, url: str) -> Generator[RoleProcess]:
    """One as `ledgerq up` runs it, whose work others take up after two seconds."""
    settings = Settings(
        redis_url=url,
        data_dir=str(folder),
        callback_timeout_ms=1_500,
        redis_timeout_ms=250,
        callback_retry_base_ms=20,
    )
    arguments = ("-m", "consumers.roles", "notifier", "notifier")
    with role_process(*arguments, cwd=folder, settings=settings) as process:
        yield process


async def test_of_a_notifier_that_is_killed_another_takes_up_the_work(
    store: RedisStore, ledger_url: str, tmp_path: Path
):
    hangs = asyncio.Event()

    async def hang(request: web.Request) -> web.Response:
        await hangs.wait()
        return web.Response()

    async with receiving(hang, 200) as receiver:
        task = await canceled(store, receiver.url)
        with notifier_process(tmp_path, ledger_url) as killed:
            await receiver.wait_for(1)
            killed.signal(signal.SIGKILL)
            killed.wait()
        before = await store.history(task.id)
        with notifier_process(tmp_path, ledger_url) as other:
            [event] = await settled(store, task)
            other.signal(signal.SIGTERM)
            assert other.wait() == 0
        hangs.set()

    assert not any(recorded.type.startswith("Callback") for recorded in before)
    assert event.type == "CallbackDelivered"
    first, second = receiver.received
    assert first.body == second.body
    assert first.headers["webhook-id"] == second.headers["webhook-id"]


async def test_a_key_is_made_once_and_shown_to_its_owner_alone(
    store: RedisStore, ledger_url: str, tmp_path: Path
):
    async with receiving() as receiver:
        for _ in range(2):
            with notifier_process(tmp_path, ledger_url):
                await settled(store, await canceled(store, receiver.url))

    key_file = tmp_path / "callback-secret"
    key = key_file.read_text().strip()
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert key.startswith("whsec_")
    for received in receiver.received:
        received.verify(key)


@asynccontextmanager
async def opened(url: str) -> AsyncGenerator[RedisStore]:
    store = await RedisStore.open(url, StoreOptions(timeout_ms=10_000))
    try:
        yield store
    finally:
        await store.close()


async def test_what_is_due_survives_its_server():
    with make_server(valkey_binary(), *PERSISTENT) as server:
        async with opened(server.url) as store, receiving(503, 200) as receiver:
            async with notifying(store, lease_ms=1):
                failed = await canceled(store, receiver.url)
                await tried(store, failed)
            waiting = await canceled(store, receiver.url)
            server.kill()
            server.start()
            async with notifying(store):
                await settled(store, failed)
                await settled(store, waiting)

    told = [received.message["task_id"] for received in receiver.received]
    assert {failed.id, waiting.id} == set(told)
