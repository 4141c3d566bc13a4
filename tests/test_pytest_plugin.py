"""The fixture `ledgerq`, in projects as users have them: each run by a pytest of its own."""

import pytest

pytest_plugins = ("pytester",)
pytestmark = pytest.mark.timeout(180)  # each starts a pytest, a server and a worker's processes

OPTIONS = ("-p", "no:randomly", "-p", "no:valkey", "-p", "no:cacheprovider", "-W", "error")
INI = """
[pytest]
asyncio_mode = {mode}
asyncio_default_fixture_loop_scope = function
ledgerq_handlers = shop
"""

SHOP = """
from consumers import PermanentError, RetryLater, handler

@handler("thumbnail")
async def thumbnail(context, payload):
    if "url" not in payload:
        raise PermanentError("the payload has no url")
    if context.attempt <= payload.get("fails", 0):
        raise OSError("try again")
    await context.progress(50, "scaling")
    return {"width": 128, "attempt": context.attempt}

@handler("upload")
def upload(context, payload):
    if context.attempt == 1:
        raise RetryLater(86_400)
    return "a day later"

@handler("render", executor="process")
def render(context, payload):
    return "in a process"
"""

TESTS = """
import asyncio
import datetime
import io
import pytest
from api.client import AsyncClient, LedgerqError, Retries
from consumers import open_file

pytestmark = pytest.mark.asyncio


async def test_retries_are_not_waited_for(ledgerq):
    task = await ledgerq.client.submit("thumbnail", "shop", {"url": "a", "fails": 3})

    [done] = await ledgerq.run_until_finished()

    assert (done.id, done.status, done.retry_count) == (task.id, "completed", 3)
    assert done.result == {"width": 128, "attempt": 4}
    assert (done.progress, done.message) == (100, "scaling")


async def test_a_day_passes_at_once(ledgerq):
    later = datetime.datetime(2100, 1, 1, tzinfo=datetime.UTC)
    await ledgerq.client.submit("upload", "shop")
    await ledgerq.client.submit("thumbnail", "shop", {"url": "a"}, schedule_for=later)

    one, other = await ledgerq.run_until_finished()

    assert one.result == "a day later"
    assert one.completed_at - one.created_at >= datetime.timedelta(days=1)
    assert other.started_at == later


async def test_a_failure_is_a_task_too(ledgerq):
    await ledgerq.client.submit("thumbnail", "shop")

    [failed] = await ledgerq.run_until_finished()

    assert (failed.status, failed.error_kind) == ("failed", "permanent")
    assert failed.error_message.endswith("the payload has no url")


async def test_every_test_begins_with_nothing(ledgerq):
    assert await ledgerq.run_until_finished() == []


async def test_a_handler_in_a_process(ledgerq):
    await ledgerq.client.submit("render", "shop")

    [done] = await ledgerq.run_until_finished()

    assert done.result == "in a process"


async def test_a_handler_of_the_test_alone(ledgerq):
    begun = asyncio.Event()

    @ledgerq.handler("thumbnail")
    async def stub(context, payload):
        begun.set()
        return "stub"

    @ledgerq.handler("mine")
    def mine(context, payload):
        raise ValueError("no")

    await ledgerq.client.submit("thumbnail", "shop")
    await ledgerq.client.submit("mine", "shop", max_retries=1)

    one, other = await ledgerq.run_until_finished()

    assert begun.is_set()
    assert (one.result, other.status, other.retry_count) == ("stub", "failed", 1)


async def test_an_uploaded_file(ledgerq):
    @ledgerq.handler("document_processing")
    async def parse(context, payload):
        async with open_file(payload["file_path"]) as file:
            return len(file.read())

    await ledgerq.client.upload(io.BytesIO(b"hello"), "shop")

    [done] = await ledgerq.run_until_finished()

    assert done.result == 5


async def test_a_list_is_there_from_the_beginning(ledgerq):
    async with AsyncClient(ledgerq.url, retries=Retries(calls_max=1)) as client:
        assert len(await client.list()) == 0


async def test_what_has_no_handler_is_left_alone(ledgerq):
    await ledgerq.client.submit("document_processing", "shop")

    [task] = await ledgerq.run_until_finished()

    assert task.status == "queued"


async def test_a_worker_meanwhile(ledgerq):
    async with ledgerq.working():
        task = await ledgerq.client.submit("thumbnail", "shop", {"url": "a"})
        assert (await ledgerq.client.wait(task.id, timeout_s=20)).status == "completed"


async def test_what_does_not_end_is_named(ledgerq):
    @ledgerq.handler("endless")
    async def endless(context, payload):
        await asyncio.Event().wait()

    task = await ledgerq.client.submit("endless", "shop")

    with pytest.raises(TimeoutError, match=f"endless {task.id} is"):
        await ledgerq.run_until_finished(timeout_s=0.3)


@pytest.mark.asyncio(loop_scope="session")
async def test_another_loop_than_the_fixtures(ledgerq):
    with pytest.raises(RuntimeError, match="same loop scope"):
        await ledgerq.client.submit("thumbnail", "shop")
    with pytest.raises(RuntimeError, match="same loop scope"):
        await ledgerq.run_until_finished()


async def test_clients_of_the_tested_code(ledgerq):
    async with AsyncClient(ledgerq.url) as client:
        with pytest.raises(LedgerqError, match="task_type"):
            await client.submit("no_such_type", "shop")
"""

BLOCKING = """
import asyncio
import pytest


def test_without_coroutines(ledgerq_blocking):
    @ledgerq_blocking.handler("mine")
    async def mine(context, payload):
        return payload

    task = ledgerq_blocking.client.submit("mine", "shop", {"a": 1})
    [done] = ledgerq_blocking.run_until_finished()

    assert (done.id, done.result) == (task.id, {"a": 1})
    assert list(ledgerq_blocking.client.watch(task.id))[-1].finished


def test_the_loop_of_the_async_fixture_stands_still(ledgerq):
    with pytest.raises(RuntimeError, match="another event loop"):
        asyncio.run(asyncio.wait_for(ledgerq.client.submit("thumbnail", "shop"), 10))
"""

ANYIO = """
import pytest


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.mark.anyio
async def test_with_anyio(ledgerq):
    await ledgerq.client.submit("thumbnail", "shop", {"url": "a"})

    [done] = await ledgerq.run_until_finished()

    assert done.status == "completed"
"""

OWN_SERVER = """
import pytest
import redis


@pytest.fixture(scope="session")
def ledgerq_server(ledgerq_server):
    with redis.Redis.from_url(ledgerq_server) as other:
        other.set("of-somebody-else", "here")
        yield f"{ledgerq_server}?db=3"


def test_other_databases_of_a_server_are_left_alone(ledgerq_blocking, ledgerq_server):
    ledgerq_blocking.client.submit("health_check", "kb-1")

    with redis.Redis.from_url(ledgerq_server) as own:
        assert own.dbsize()
    with redis.Redis.from_url(ledgerq_server.removesuffix("?db=3")) as other:
        assert other.keys() == [b"of-somebody-else"]
"""

UNRELATED = """
import sys
import api


def test_the_own_package_is_found():
    assert api.mine


def test_nothing_of_ledgerq_was_imported():
    ours = {"ledger", "consumers", "projections", "redis", "httpx2", "msgspec", "api.client"}
    assert not ours & set(sys.modules)
"""


def test_a_project_with_strict_asyncio(pytester: pytest.Pytester) -> None:
    pytester.makeini(INI.format(mode="strict"))
    pytester.makepyfile(shop=SHOP, test_async=TESTS, test_blocking=BLOCKING, test_anyio=ANYIO)

    result = pytester.runpytest_subprocess(*OPTIONS)

    result.assert_outcomes(passed=16)


def test_a_project_with_automatic_asyncio(pytester: pytest.Pytester) -> None:
    pytester.makeini(INI.format(mode="auto"))
    pytester.makepyfile(shop=SHOP, test_async=TESTS.replace("pytestmark", "_"))

    result = pytester.runpytest_subprocess(*OPTIONS, "-k", "retries or day or begins")

    result.assert_outcomes(passed=3, deselected=10)


def test_a_project_with_a_server_of_its_own(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_own_server=OWN_SERVER)

    result = pytester.runpytest_subprocess(*OPTIONS, "-p", "no:asyncio")

    result.assert_outcomes(passed=1)


def test_a_project_that_does_not_use_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_unrelated=UNRELATED)
    pytester.mkpydir("api").joinpath("__init__.py").write_text("mine = True\n")

    result = pytester.runpytest_subprocess(*OPTIONS, "-p", "no:asyncio", "-p", "no:schemathesis")

    result.assert_outcomes(passed=2)
