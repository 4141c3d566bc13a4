"""The service in numbers, as Prometheus reads them."""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from api.app import App, create_app
from api.metric_families import Scrape
from api.metrics import exposition
from consumers import meters
from consumers.meter_files import MeterFile
from consumers.meters import Meter
from ledger.keys import PartitionKeys
from ledger.redis_archive import Hold, RedisArchive, Sealed
from ledger.redis_connection import send
from ledger.redis_store import RedisStore, StoreOptions
from ledger.settings import Settings
from ledger.workers import WorkerReport, WorkerState
from projections.read_model import ReadModel
from tests.api.listening import listening
from tests.api.requests import BATCH, TASKS, UNKNOWN_ID, body, complete, fail, start, submitted
from tests.read_models import bring_level, read_model
from tests.servers import make_server, valkey_binary

Samples = dict[str, float]
"""By name and labels, as `name{label="value"}`."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=str(tmp_path))


@pytest.fixture
async def model(store: RedisStore, settings: Settings) -> AsyncIterator[ReadModel]:
    """A read model beside the API."""
    model = await read_model(store, settings.read_model_folder)
    yield model
    model.db.close()


async def scraped(api: httpx2.AsyncClient) -> Samples:
    """What a scrape tells. Fails when Prometheus could not read it."""
    answer = await api.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found: Samples = {}
    for family in text_string_to_metric_families(answer.text):
        assert family.documentation, family.name
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


async def test_the_docs_list_every_metric_and_no_other(api: httpx2.AsyncClient, model: ReadModel):
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    firsts = re.findall(r"^\| (`.*?) \|", page, re.MULTILINE)
    listed = {name for cell in firsts for name in re.findall(r"`(\w+)`", cell)}

    told = re.findall(r"^# TYPE (\w+)", (await api.get("/metrics")).text, re.MULTILINE)

    assert set(told) == listed


# -- what the ledger knows --------------------------------------------------------------------


async def test_tasks_and_attempts_are_told(
    api: httpx2.AsyncClient, store: RedisStore, model: ReadModel
):
    for _ in range(3):
        await complete(store, (await submitted(api))["id"])
    await fail(store, (await submitted(api, task_type="health_check"))["id"])
    await start(store, (await submitted(api))["id"])
    for priority in ("high", "high", "low"):
        await submitted(api, priority=priority)
    await bring_level(model, store)

    told = await scraped(api)

    assert told["task_success_total{type=document_processing}"] == 3
    assert told["task_failure_total{type=document_processing}"] == 0
    assert told["task_failure_total{type=health_check}"] == 1
    assert told["task_retry_total{type=health_check}"] == 0
    sizes = {p: told[f"task_queue_size{{priority={p}}}"] for p in ("critical", "high", "low")}
    assert sizes == {"critical": 0, "high": 2, "low": 1}
    assert told["task_processing_duration_seconds_count{type=document_processing}"] == 3
    assert told["task_processing_duration_seconds_bucket{le=+Inf,type=health_check}"] == 1
    assert told["task_queue_wait_seconds_count{type=document_processing}"] == 4
    assert told["task_queue_wait_seconds_sum{type=document_processing}"] >= 0


async def test_counters_begin_at_zero_for_every_known_type(
    api: httpx2.AsyncClient, model: ReadModel, settings: Settings
):
    told = await scraped(api)

    for task_type in settings.known_task_types:
        for outcome in ("success", "failure", "retry"):
            assert told[f"task_{outcome}_total{{type={task_type}}}"] == 0


async def test_how_far_the_read_model_is_behind_is_told_in_events(
    api: httpx2.AsyncClient, store: RedisStore, model: ReadModel
):
    await submitted(api)
    await send(store.client, ("XADD", PartitionKeys(0).events, "*", "x", "y"))
    await bring_level(model, store)
    level = await scraped(api)
    for _ in range(5):
        await submitted(api)

    behind = await scraped(api)

    for projection in ("tasks", "stats", "queues"):
        assert level[f"projection_lag_events{{projection={projection}}}"] == 0
        assert behind[f"projection_lag_events{{projection={projection}}}"] == 5


async def test_a_projection_that_stopped_alone_has_no_end_of_lag(
    api: httpx2.AsyncClient, store: RedisStore, model: ReadModel
):
    model.db.execute("UPDATE projections SET stopped_at = '0:1-0' WHERE name = 'stats'")

    told = await scraped(api)

    assert told["projection_stopped{projection=stats}"] == 1
    assert told["projection_lag_events{projection=stats}"] == float("inf")
    assert told["projection_stopped{projection=tasks}"] == 0
    assert told["ledger_went_backwards"] == 0


async def test_a_ledger_that_went_backwards_is_an_alarm(api: httpx2.AsyncClient, model: ReadModel):
    model.stop_all("0:1-0", "the ledger went backwards: the event at 0:1-0 is gone")

    told = await scraped(api)

    assert told["ledger_went_backwards"] == 1


async def test_how_far_the_archive_goes_and_that_it_is_halted_are_told(
    api: httpx2.AsyncClient, store: RedisStore
):
    await api.post(TASKS, json=body())
    fence = RedisArchive(store.client, 1, 5_000)
    hold = await fence.take(0, "an archiver", 60_000)
    assert isinstance(hold, Hold)

    before = await scraped(api)
    last = await store.last_position(0)
    await fence.keep(0, hold.generation, 60_000, Sealed(1, last.entry, "", 1))
    after = await scraped(api)
    await fence.halt(0, hold.generation, "it went back")

    labels = "{partition=0}"
    names = [f"archive_{name}{labels}" for name in ("sealed_events", "lag_events", "halted")]
    assert [before[name] for name in names] == [0, 1, 0]
    assert before[f"archive_unsealed_seconds{labels}"] >= 0
    assert [after[name] for name in names] == [1, 0, 0]
    assert after[f"archive_unsealed_seconds{labels}"] == 0
    assert (await scraped(api))[names[2]] == 1


def test_what_an_archiver_measured_is_told():
    meter = Meter()
    meter.sealed(100, 0.3)
    meter.seal_failed()
    meter.retention_failed()

    samples = exposition(Scrape(meter.meters, None, None, None)).decode()

    assert "archive_events_sealed_total 100.0" in samples
    assert "archive_seals_failed_total 1.0" in samples
    assert "retention_failed_total 1.0" in samples
    assert "archive_seal_duration_seconds_count 1.0" in samples


async def test_workers_are_counted(api: httpx2.AsyncClient, store: RedisStore):
    for name, state in (("a", WorkerState.IDLE), ("b", WorkerState.BUSY), ("c", WorkerState.BUSY)):
        await store.announce(WorkerReport(name, "host", 1, ("health_check",), 1, 60_000, 1, state))

    told = await scraped(api)

    assert told["worker_pool_active_count"] == 3
    assert told["worker_pool_idle_count"] == 1


# -- what processes measure -------------------------------------------------------------------


async def test_requests_are_told_by_route_and_never_by_path(
    api: httpx2.AsyncClient, store: RedisStore
):
    task = await submitted(api)
    for path in (f"{TASKS}/{task['id']}", f"{TASKS}/{UNKNOWN_ID}", "/no/such/path"):
        await api.get(path)
    await api.request("BREW", "/livez")

    told = await scraped(api)

    name = "http_request_duration_seconds_count"
    counts = {key.removeprefix(name): n for key, n in told.items() if key.startswith(name) and n}
    assert counts == {
        "{method=POST,route=/api/v1/tasks,status=201}": 1,
        "{method=GET,route=/api/v1/tasks/{task_id},status=200}": 1,
        "{method=GET,route=/api/v1/tasks/{task_id},status=404}": 1,
        "{method=GET,route=other,status=404}": 1,
        "{method=other,route=/livez,status=405}": 1,
    }


async def test_appends_are_told(api: httpx2.AsyncClient):
    await submitted(api)
    await api.post(BATCH, json=[body()] * 50)

    told = await scraped(api)

    assert told["ledger_append_batch_size_sum"] == 51
    appends = told["ledger_append_batch_size_count"]
    assert told["ledger_append_duration_seconds_count"] == appends <= 51
    assert told["ledger_append_batch_size_bucket{le=1.0}"] >= 1


async def test_clients_of_the_live_feed_are_told(web: httpx2.AsyncClient):
    async with listening(web):
        during = await scraped(web)
        await submitted(web)
    after = await scraped(web)
    while after["event_stream_clients"]:
        after = await scraped(web)

    assert during["event_stream_clients"] == 1
    route = "{method=GET,route=/api/v1/events,status=200}"
    assert after[f"http_request_duration_seconds_sum{route}"] < 1


async def test_what_handlers_did_to_their_worker_is_told(settings: Settings):
    meter = Meter()
    kept = MeterFile(meter, settings.metrics_folder)
    meter.threads_abandoned(2)
    # Kept at once: a worker that is killed for it must not take the figure with it.
    meter.loop_blocked("work")
    meter.loop_moves("work", 1.5)
    told = await kept.gather()
    await kept.close()

    samples = exposition(Scrape(told, None, None, None)).decode()

    assert "worker_threads_abandoned 2.0" in samples
    assert 'worker_loop_blocks_total{type="work"} 1.0' in samples
    assert 'worker_loop_blocked_seconds_total{type="work"} 1.5' in samples


async def test_a_blocked_loop_is_counted_although_its_process_is_killed(settings: Settings):
    meter = Meter()
    killed = MeterFile(meter, settings.metrics_folder)
    meter.loop_blocked("work")
    other = MeterFile(Meter(), settings.metrics_folder)

    assert (await other.gather()).loop_blocks == {"work": 1}
    await killed.close()
    meter.threads_abandoned(2)
    assert (await other.gather()).threads_abandoned == 0
    await other.close()


async def test_foreign_entries_are_told(web: httpx2.AsyncClient, store: RedisStore):
    async with listening(web) as stream:
        await send(store.client, ("XADD", PartitionKeys(0).events, "*", "x", "y"))
        await submitted(web)
        await stream.event()

    assert (await scraped(web))["ledger_foreign_entries_total"] == 1


async def test_what_callers_invent_does_not_make_series_without_end():
    meter = Meter()

    for status in range(2 * meters.SERIES_MAX):
        meter.request("/x", "GET", status, 0.1)

    assert len(meter.meters.requests) == meters.SERIES_MAX + 1
    assert sum(sum(h.counts) for h in meter.meters.requests.values()) == 2 * meters.SERIES_MAX


# -- several processes ------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def kept(folder: Path) -> AsyncGenerator[tuple[Meter, MeterFile]]:
    """A process's measurements, as far as files are concerned."""
    meter = Meter()
    file = MeterFile(meter, folder)
    file.start()
    try:
        yield meter, file
    finally:
        await file.close()


async def test_processes_tell_together_whichever_is_asked(tmp_path: Path):
    async with kept(tmp_path) as (one, first), kept(tmp_path) as (two, second):
        for _ in range(3):
            one.append(1, 0.1)
        two.append(2, 0.2)
        two.stream(opened=1)
        second.flush()
        told = [await file.gather() for file in (first, second)]

    assert [m.append_items.total for m in told] == [5, 5]
    assert [m.stream_clients for m in told] == [1, 1]


async def test_what_ended_processes_measured_is_kept_and_their_files_are_not(tmp_path: Path):
    last = 0.0
    for _ in range(3):
        async with kept(tmp_path) as (meter, file):
            meter.append(1, 0.1)
            meter.stream(opened=1)
            # What is told once never becomes smaller.
            last = (await file.gather()).append_items.total

    async with kept(tmp_path) as (_, file):
        told = await file.gather()

    assert told.append_items.total == last == 3
    assert told.stream_clients == 0
    assert len(os.listdir(tmp_path)) <= 4


KILLED = """
import asyncio, sys, pathlib
from consumers.meter_files import MeterFile
from consumers.meters import Meter

async def main():
    meter = Meter()
    file = MeterFile(meter, pathlib.Path(sys.argv[1]))
    meter.append(7, 0.1)
    meter.stream(opened=1)
    file.flush()
    print("ready", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_what_a_killed_process_measured_is_counted_once(tmp_path: Path):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", KILLED, str(tmp_path)),
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    assert process.stdout is not None
    async with asyncio.timeout(20):
        await process.stdout.readline()
    async with kept(tmp_path) as (_, file):
        alive = await file.gather()
        process.send_signal(signal.SIGKILL)
        await process.wait()
        dead = [await file.gather() for _ in range(2)]

    assert (alive.append_items.total, alive.stream_clients) == (7, 1)
    assert [(m.append_items.total, m.stream_clients) for m in dead] == [(7, 0)] * 2


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"append_items": {"counts": [1]}}'])
async def test_a_damaged_file_is_left_out(tmp_path: Path, content: bytes):
    (tmp_path / "1-a.json").write_bytes(content)
    (tmp_path / "1-a.lock").touch()
    (tmp_path / "ended.json").write_bytes(content)

    async with kept(tmp_path) as (meter, file):
        meter.append(1, 0.1)
        told = await file.gather()

    assert told.append_items.total == 1


async def test_a_folder_that_cannot_be_written_to_is_done_without(tmp_path: Path):
    (tmp_path / "metrics").write_text("in the way")

    async with kept(tmp_path / "metrics") as (meter, file):
        meter.append(1, 0.1)
        told = await file.gather()

    assert told.append_items.total == 1


# -- parts that do not answer -----------------------------------------------------------------


async def test_without_a_read_model_the_rest_is_told(api: httpx2.AsyncClient):
    await submitted(api)

    told = await scraped(api)

    assert (told["read_model_up"], told["ledger_up"]) == (0, 1)
    assert told["ledger_append_batch_size_sum"] == 1
    assert not [name for name in told if name.startswith("task_")]


async def test_without_a_ledger_the_rest_is_told(tmp_path: Path):
    settings = Settings(data_dir=str(tmp_path))
    with make_server(valkey_binary()) as server:
        store = await RedisStore.open(server.url, StoreOptions(timeout_ms=300))
        model = await read_model(store, settings.read_model_folder)
        app: App = create_app(store, settings)
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://api") as api:
            server.kill()
            told = await scraped(api)
        model.db.close()
        await app.close()
        await store.close()

    assert (told["read_model_up"], told["ledger_up"]) == (1, 0)
    assert told["task_queue_size{priority=normal}"] == 0
    assert "worker_pool_idle_count" not in told
