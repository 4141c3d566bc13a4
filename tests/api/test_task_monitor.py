"""`TaskMonitor` in a real browser."""

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import AsyncGenerator
from typing import Any, Final

import httpx2
import msgspec
import pytest
from playwright.async_api import Page

from api.task_feed import ERRORS_MAX
from ledger.commands import CancelTask, CompleteTask, ReportProgress
from ledger.keys import PartitionKeys
from ledger.redis_connection import send
from ledger.redis_store import RedisStore
from tests.api.conftest import Service
from tests.api.requests import UNKNOWN_ID, do, start, submitted
from tests.api.test_server import answering
from tests.browsers import needs_chromium, new_page
from tests.checks import read_all
from tests.contracts.store import submit

PATIENCE_MS: Final = 60_000

pytestmark = [
    needs_chromium,
    pytest.mark.timeout(150),
]

IDS_IN_ADDRESS: Final = 150

SCRIPT: Final = "/static/task-monitor.js"
BEGIN: Final = f"""async (options) => {{
  await import("{SCRIPT}");
  window.told = [];
  window.reloads = [];
  window.errors = [];
  window.states = [];
  window.monitor = new TaskMonitor(options ?? undefined);
  monitor.onReload((reason) => reloads.push(reason.code));
  monitor.onError((error) => errors.push(error.code));
  monitor.onState((state) => states.push(state));
}}"""
WATCH: Final = """async (id) => {
  window.stop = monitor.watchTask(id, (task) => told.push(task));
  await monitor.connect();
}"""
FOLLOW: Final = """async () => {
  monitor.onUpdate((task) => told.push(task));
  await monitor.connect();
}"""


@contextlib.asynccontextmanager
async def browsing(port: int) -> AsyncGenerator[Page]:
    """A page of the service, which may run scripts."""
    async with new_page(PATIENCE_MS) as page:
        await page.goto(f"http://127.0.0.1:{port}/livez")
        yield page


async def told_until(page: Page, condition: str) -> list[dict[str, Any]]:
    """What the page was told, once that holds."""
    await page.wait_for_function(condition)
    return await page.evaluate("told")


async def test_a_page_watches_a_task_to_its_end(
    service: Service, web: httpx2.AsyncClient, store: RedisStore
):
    task = await submitted(web)
    async with browsing(service.port) as page:
        await page.evaluate(BEGIN)
        await page.evaluate(WATCH, task["id"])
        await told_until(page, "told.length == 1")
        await start(store, task["id"])
        await do(store, task["id"], ReportProgress(40, "parsing"))
        await submitted(web)
        await complete_started(store, task["id"])
        told = await told_until(page, "told.length == 4")
        states = await page.evaluate("states")
        await page.evaluate("monitor.watchTask('" + UNKNOWN_ID + "', () => {})")
        await page.wait_for_function("errors.length == 1")
        errors = await page.evaluate("errors")
        await page.evaluate("monitor.close()")

    assert [(one["status"], one["progress"]) for one in told] == [
        ("queued", 0),
        ("processing", 0),
        ("processing", 40),
        ("completed", 100),
    ]
    assert told[3]["result"] == {"chunks": 12}
    assert states == ["connecting", "open"]
    assert errors == ["TASK_NOT_FOUND"]


async def complete_started(store: RedisStore, task_id: str) -> None:
    await do(store, task_id, CompleteTask(1, msgspec.Raw(b'{"chunks": 12}')))


PROCESS: Final = """
import sys
from api.server import run
from ledger.settings import Settings

run(Settings(redis_url=sys.argv[1], port=int(sys.argv[2]), grpc_port=0, data_dir=sys.argv[3]))
"""


@contextlib.asynccontextmanager
async def api_process(
    url: str, port: int, folder: str
) -> AsyncGenerator[asyncio.subprocess.Process]:
    """The API as a process, which is killed in the end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROCESS, url, str(port), folder),
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    try:
        async with asyncio.timeout(60):
            await answering(port)
        yield process
    finally:
        process.kill()
        await process.wait()


async def test_a_page_goes_on_where_a_killed_service_left_off(
    ledger_url: str, store: RedisStore, tmp_path_factory: pytest.TempPathFactory
):
    folder = str(tmp_path_factory.mktemp("data"))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    async with contextlib.AsyncExitStack() as stack:
        async with api_process(ledger_url, port, folder):
            page = await stack.enter_async_context(browsing(port))
            await page.evaluate(BEGIN, {"after": "beginning"})
            await page.evaluate(FOLLOW)
            for _ in range(5):
                await submit(store)
            await told_until(page, "told.length >= 3")
        for _ in range(5):
            await submit(store)
        async with api_process(ledger_url, port, folder):
            for _ in range(5):
                await submit(store)
            told = await told_until(page, "told.length >= 15")
            reloads = await page.evaluate("reloads")

    everything = [str(event.position) for event in await read_all(store, 0)]
    assert [one["position"] for one in told] == everything
    assert reloads == []


async def test_a_page_whose_position_is_lost_says_so_and_is_told_how_its_tasks_stand(
    service: Service, web: httpx2.AsyncClient, store: RedisStore
):
    events = PartitionKeys(0).events
    task = await submitted(web)
    before = await send(store.client, ("DUMP", events))
    await submitted(web)
    async with browsing(service.port) as page:
        await page.evaluate(BEGIN)
        await page.evaluate(WATCH, task["id"])
        await told_until(page, "told.length == 1")
        await page.evaluate("monitor.close()")
        # As a failover does that loses the newest event.
        await send(store.client, ("RESTORE", events, 0, before, "REPLACE"))
        await page.evaluate("monitor.connect()")
        told = await told_until(page, "told.length == 2")
        reloads = await page.evaluate("reloads")
        await page.evaluate("monitor.close()")

    assert reloads == ["INVALID_REQUEST"]
    assert [one["status"] for one in told] == ["queued", "queued"]
    assert {one["task_id"] for one in told} == {task["id"]}


async def test_tasks_that_cannot_be_watched_keep_nothing_from_the_others(
    service: Service, web: httpx2.AsyncClient, store: RedisStore
):
    task = await submitted(web)
    unknown = [f"{UNKNOWN_ID[:-4]}{number:04x}" for number in range(ERRORS_MAX + 5)]
    async with browsing(service.port) as page:
        await page.evaluate(BEGIN)
        await page.evaluate(
            "(ids) => ids.forEach((id) => monitor.watchTask(id, () => {}))", unknown
        )
        await page.evaluate("monitor.watchTask('no-id', () => {})")
        await page.evaluate(WATCH, task["id"])
        # After so many refusals the service hangs up; whoever asks for the same again never ends.
        await page.wait_for_function(f"errors.length > {len(unknown)}")
        await told_until(page, "told.length >= 1 && monitor.state == 'open'")
        await page.evaluate("monitor.close()")
        await page.evaluate("monitor.connect()")
        await do(store, task["id"], CancelTask())
        told = await told_until(page, "told.at(-1).status == 'canceled'")
        errors = await page.evaluate("errors")
        await page.evaluate("monitor.close()")

    assert {one["task_id"] for one in told} == {task["id"]}
    assert sorted(errors) == ["INVALID_REQUEST", *["TASK_NOT_FOUND"] * len(unknown)]


async def test_who_begins_to_watch_while_there_is_no_connection_is_told_how_the_task_stands(
    service: Service, web: httpx2.AsyncClient
):
    task = await submitted(web)
    async with browsing(service.port) as page:
        await page.evaluate(BEGIN)
        await page.evaluate(WATCH, task["id"])
        await told_until(page, "told.length == 1")
        # given a connection that broke, and another one who wants to know of the same task
        await page.evaluate("monitor.close()")
        await page.evaluate("told.length = 0")
        await page.evaluate(f"void monitor.watchTask('{task['id']}', (task) => told.push(task))")
        # when it is there again
        await page.evaluate("monitor.connect()")
        told = await told_until(page, "told.length == 2")
        await page.evaluate("monitor.close()")

    assert [one["status"] for one in told] == ["queued", "queued"]


async def test_tasks_that_an_address_has_no_room_for_are_not_told_again(
    service: Service, web: httpx2.AsyncClient, store: RedisStore
):
    ids = [(await submit(store)).id for _ in range(IDS_IN_ADDRESS + 3)]
    async with browsing(service.port) as page:
        await page.evaluate(BEGIN)
        await page.evaluate(
            "(ids) => ids.forEach((id) => monitor.watchTask(id, (task) => told.push(task)))", ids
        )
        await page.evaluate("monitor.connect()")
        await told_until(page, f"told.length == {len(ids)}")
        # given a connection that broke, and one of the last tasks that went on meanwhile
        await page.evaluate("monitor.close()")
        await page.evaluate("told.length = 0")
        await do(store, ids[-2], CancelTask())
        # when all are asked for again, and another one wants to know of the last
        await page.evaluate(f"void monitor.watchTask('{ids[-1]}', () => {{}})")
        await page.evaluate("monitor.connect()")
        told = await told_until(
            page, f"['{ids[-1]}', '{ids[-2]}'].every((id) => told.some((it) => it.task_id == id))"
        )
        await page.evaluate("monitor.close()")

    assert sorted((one["status"], one["task_id"]) for one in told) == [
        ("canceled", ids[-2]),
        ("queued", ids[-1]),
    ]


async def test_a_task_that_cannot_be_watched_is_forgotten(service: Service):
    async with browsing(service.port) as page:
        await page.evaluate(BEGIN)
        await page.evaluate(WATCH, UNKNOWN_ID)
        await page.wait_for_function("errors.length == 1 && monitor.state == 'closed'")
        await page.evaluate(
            """() => {
              window.addresses = [];
              window.WebSocket = class extends WebSocket {
                constructor(address) { super(address); addresses.push(String(address)); }
              };
            }"""
        )
        await page.evaluate(FOLLOW)
        addresses = await page.evaluate("addresses")
        await page.evaluate("monitor.close()")

    # A second one would name no task, and be told of all.
    assert len(addresses) == 1


@pytest.mark.parametrize("given", ["/tasks", "/tasks/"])
async def test_a_service_may_lie_under_a_path(service: Service, given: str):
    async with browsing(service.port) as page:
        await page.evaluate(
            """() => {
              window.addresses = [];
              window.WebSocket = class extends WebSocket {
                constructor(address) { super(address); addresses.push(address.pathname); }
              };
            }"""
        )
        await page.evaluate(BEGIN, {"url": f"http://127.0.0.1:{service.port}{given}"})
        await page.evaluate(f"void ({FOLLOW})().catch(() => {{}})")
        await page.wait_for_function("addresses.length > 0")
        addresses = await page.evaluate("addresses")
        await page.evaluate("monitor.close()")

    assert addresses[0] == "/tasks/ws/tasks"


async def test_a_page_of_elsewhere_learns_why_it_may_not_watch(
    service: Service, web: httpx2.AsyncClient
):
    task = await submitted(web)
    async with browsing(service.port) as page:
        # The same service, and to a browser another origin than 127.0.0.1.
        await page.goto(f"http://localhost:{service.port}/livez")
        await page.evaluate(BEGIN, {"url": f"http://127.0.0.1:{service.port}"})
        refused = await page.evaluate(f"({WATCH})('{task['id']}').catch((error) => error.message)")
        state, errors = await page.evaluate("[monitor.state, errors]")

    assert (state, errors) == ("refused", ["FORBIDDEN"])
    assert "websocket_origins" in refused


async def test_whoever_closes_does_not_wait_for_the_connection(
    service: Service, web: httpx2.AsyncClient
):
    task = await submitted(web)
    async with browsing(service.port) as page:
        await page.evaluate(BEGIN)
        await page.evaluate(f"monitor.watchTask('{task['id']}', () => {{}})")
        async with asyncio.timeout(20):
            await page.evaluate(
                "() => { const opening = monitor.connect(); monitor.close(); return opening; }"
            )
        assert await page.evaluate("monitor.state") == "closed"


async def test_the_script_is_asked_for_again_only_when_it_has_changed(api: httpx2.AsyncClient):
    first = await api.get(SCRIPT)
    again = await api.get(SCRIPT, headers={"If-None-Match": first.headers["etag"]})

    assert first.headers["content-type"] == "text/javascript; charset=utf-8"
    assert first.headers["access-control-allow-origin"] == "*"
    assert "export class TaskMonitor" in first.text
    assert (again.status_code, again.content) == (304, b"")
