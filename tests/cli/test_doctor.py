"""`ledgerq doctor`: says what is wrong and what to do, and its exit code says whether it is bad."""

import asyncio
import contextlib
import http.server
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from ledger.embedded import EmbeddedServer
from ledger.keys import LEDGER, PartitionKeys
from ledger.placement import Priority, Queue
from ledger.redis_connection import Argument, connect, send
from ledger.redis_store import RedisStore
from projections.model_files import ModelFiles
from projections.read_model import ReadModel
from projections.sqlite import create, finish
from tests.cli.running import Call, Up
from tests.contracts.store import submit
from tests.object_stores import run_s3
from tests.servers import REDIS_BINARY, run_server, valkey_binary

NOWHERE = ("--url", "http://127.0.0.1:9")
EVERYSEC = ("--appendonly", "yes", "--appendfsync", "everysec")
ALWAYS = ("--appendonly", "yes", "--appendfsync", "always")


def checks(ran: Any) -> dict[str, dict[str, str]]:
    """By name; the worst of each."""
    order = ["ok", "warn", "fail"]
    found = sorted(json.loads(ran.out)["checks"], key=lambda check: order.index(check["level"]))
    return {check["check"]: check for check in found}


def write(url: str, *commands: tuple[Argument, ...]) -> None:
    async def run() -> None:
        client = connect(url, timeout_ms=5_000, connections_max=1)
        for command in commands:
            await send(client, command)
        await client.aclose()

    asyncio.run(run())


def test_a_running_service_is_well(client: Call, service: Up):
    data_dir = str(service.folder / ".ledgerq")

    ran = client("doctor", "--data-dir", data_dir, "--json")
    found = checks(ran)

    assert ran.code == 0
    # Disks are as full as they are, and other tests of this service leave tasks that nobody takes.
    others = ("disk", "object store", "queues")
    assert [c for c in found.values() if c["level"] != "ok" and c["check"] not in others] == []
    assert found["durability"]["message"] == "append-only file, appendfsync always"
    assert f"process {service.process.pid}" in found["data dir"]["message"]
    assert "is healthy" in found["api"]["message"]
    assert set(found) >= {
        *("python", "settings", "server", "eviction", "memory", "clock", "ledger", "queues"),
        *("claims", "due", "leases", "set aside", "data dir", "disk", "api"),
    }


def test_plain_lines_begin_with_the_verdict(ledgerq: Call):
    ran = ledgerq("doctor", *NOWHERE)

    assert ran.code == 0
    assert ran.out.startswith("ok")
    assert any(line.startswith("warn  server") for line in ran.out.splitlines())


def test_nothing_is_started_by_a_check(ledgerq: Call, tmp_path: Path):
    ran = ledgerq("doctor", *NOWHERE, "--json")

    assert "`ledgerq up`" in checks(ran)["server"]["advice"]
    assert list(tmp_path.iterdir()) == []


def test_a_ledger_that_nobody_runs_is_looked_at_when_it_is_named(
    ledgerq: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # A flag comes first.
    monkeypatch.setenv("LEDGERQ_REDIS_URL", "redis://127.0.0.1:9")

    async def make() -> None:
        async with EmbeddedServer(tmp_path / "data") as server:
            await (await RedisStore.open(server.url)).close()

    asyncio.run(make())

    found = checks(ledgerq("doctor", "--data-dir", "data", *NOWHERE, "--json"))

    assert found["ledger"]["message"] == "format 1, 1 partition"
    assert found["data dir"]["message"] == "data is free"


def test_a_server_out_of_reach_fails(ledgerq: Call):
    ran = ledgerq("doctor", "--redis", "redis://:secret@127.0.0.1:9", *NOWHERE, "--json")

    assert ran.code == 1
    assert checks(ran)["server"]["level"] == "fail"
    assert "out of reach" in checks(ran)["server"]["message"]
    assert "secret" not in ran.out


class Outage(http.server.BaseHTTPRequestHandler):
    """The API while it cannot reach Redis."""

    def do_GET(self) -> None:
        parts = {"database": "not_used", "redis": "unhealthy", "queue": "unhealthy"}
        details = {name: {"status": status} for name, status in parts.items()}
        health = {"status": "unhealthy", "service": "task-manager", "version": "1"}
        self.send_response(503)
        self.end_headers()
        self.wfile.write(json.dumps({**health, "details": details}).encode())

    def log_message(self, format: str, *args: Any) -> None: ...


def test_an_api_that_is_not_healthy_fails_with_the_parts_at_fault(ledgerq: Call):
    with http.server.HTTPServer(("127.0.0.1", 0), Outage) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        ran = ledgerq("doctor", "--url", url, "--json")
        thread.join()

    assert ran.code == 1
    assert checks(ran)["api"]["message"] == f"{url} is unhealthy: redis, queue"


def test_an_object_store_that_cannot_be_used_fails(
    ledgerq: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "s3").mkdir()
    with run_s3(tmp_path / "s3") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("LEDGERQ_OBJECT_STORE_URL", server.url)
        well = checks(ledgerq("doctor", *NOWHERE, "--json"))
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another one")
        refused = ledgerq("doctor", *NOWHERE, "--json")

    assert well["object store"] == {
        "check": "object store",
        "level": "ok",
        "message": f"{server.url} answers",
        "advice": "",
    }
    assert refused.code == 1
    assert "403" in checks(refused)["object store"]["message"]


def test_settings_that_are_wrong_fail(ledgerq: Call, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LEDGERQ_PORT", "many")

    ran = ledgerq("doctor", "--json")

    assert ran.code == 1
    assert "port: expected a whole number" in checks(ran)["settings"]["message"]


def test_a_server_in_memory_breaks_the_promise(ledgerq: Call, empty_url: str):
    ran = ledgerq("doctor", "--redis", empty_url, *NOWHERE, "--json")

    assert ran.code == 1
    assert checks(ran)["durability"]["level"] == "fail"
    assert "keeps no append-only file" in checks(ran)["durability"]["message"]


@pytest.mark.parametrize(
    ("arguments", "durability", "level"),
    [
        (ALWAYS, "always", "ok"),
        (ALWAYS, "everysec", "ok"),
        (EVERYSEC, "everysec", "ok"),
        (EVERYSEC, "always", "fail"),
    ],
)
def test_the_server_must_sync_as_often_as_the_settings_promise(
    ledgerq: Call,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    durability: str,
    level: str,
):
    monkeypatch.setenv("LEDGERQ_DURABILITY", durability)
    with run_server(valkey_binary(), *arguments) as url:
        ran = ledgerq("doctor", "--redis", url, *NOWHERE, "--json")

    assert checks(ran)["durability"]["level"] == level
    assert ran.code == (1 if level == "fail" else 0)


def test_a_server_that_evicts_fails(ledgerq: Call):
    with run_server(valkey_binary(), *ALWAYS, "--maxmemory-policy", "allkeys-lru") as url:
        ran = ledgerq("doctor", "--redis", url, *NOWHERE, "--json")

    assert ran.code == 1
    assert "allkeys-lru" in checks(ran)["eviction"]["message"]


@pytest.mark.skipif(REDIS_BINARY is None, reason="there is no redis-server on this machine")
def test_redis_7_is_new_enough(ledgerq: Call, redis_url: str):
    ran = ledgerq("doctor", "--redis", redis_url, *NOWHERE, "--json")

    assert checks(ran)["server"]["level"] == "ok"
    assert checks(ran)["server"]["message"].startswith("Redis 7.")


def test_a_ledger_of_other_partitions_fails(
    ledgerq: Call, empty_url: str, monkeypatch: pytest.MonkeyPatch
):
    write(empty_url, ("HSET", LEDGER, "format", "1", "partitions", "4"))

    found = checks(ledgerq("doctor", "--redis", empty_url, *NOWHERE, "--json"))

    assert found["ledger"]["level"] == "fail"
    assert found["ledger"]["message"] == "its partitions is 4, the settings ask for 1"


def test_what_nobody_takes_care_of_is_a_warning(ledgerq: Call, empty_url: str):
    names = PartitionKeys(0)
    ready = names.ready(Queue("health_check", Priority.NORMAL))
    write(
        empty_url,
        ("HSET", LEDGER, "format", "1", "partitions", "1"),
        ("HSET", names.counters, "used:health_check:normal", "1"),
        ("XADD", ready, "1-0", "task", "x", "n", "1"),
        ("ZADD", names.due, 1, "x"),
        ("ZADD", names.leases, 1, "x:1"),
        ("XADD", names.set_aside, "1-0", "task", "x"),
    )

    found = checks(ledgerq("doctor", "--redis", empty_url, *NOWHERE, "--json"))

    assert {name for name, check in found.items() if check["level"] == "warn"} == {
        *("queues", "due", "leases", "set aside"),
    }
    assert "health_check" in found["queues"]["message"]
    assert "ledgerq scheduler" in found["leases"]["advice"]


def test_events_that_wait_to_be_sealed_are_told_of(ledgerq: Call, empty_url: str):
    async def submitted() -> None:
        store = await RedisStore.open(empty_url)
        await submit(store)
        await store.close()

    asyncio.run(submitted())

    found = checks(ledgerq("doctor", "--redis", empty_url, *NOWHERE, "--json"))

    assert found["archive"]["level"] == "ok"
    assert found["archive"]["message"].startswith("0 events sealed, more wait for ")


def test_a_stranger_on_the_port_is_a_warning(ledgerq: Call, service: Up):
    ran = ledgerq("doctor", "--url", f"{service.url}/elsewhere", "--json")

    assert checks(ran)["api"]["level"] == "warn"


def test_a_projection_that_stopped_is_a_failure_with_its_reason(
    tmp_path: Path, empty_url: str, ledgerq: Call
):
    where = ("--redis", empty_url, *NOWHERE)
    path = tmp_path / ".ledgerq" / "read-model" / "read-model-1.sqlite3"
    path.parent.mkdir(parents=True)
    with contextlib.closing(create(path)) as db:
        model = ReadModel(db, partitions=1, epoch="e")
        finish(db)
        ModelFiles(path.parent).install(path)
        fine = checks(ledgerq("doctor", *where, "--json"))
        model.stop_all("0:5-0", "TaskMoved at 0:5-0: unknown")
        stopped = ledgerq("doctor", *where, "--json")

    assert fine["read model"]["level"] == "ok"
    assert stopped.code == 1
    assert checks(stopped)["read model"]["level"] == "fail"
    assert "TaskMoved at 0:5-0" in checks(stopped)["read model"]["message"]
