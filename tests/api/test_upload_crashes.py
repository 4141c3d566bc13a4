"""API processes that are killed, and ledgers that do not answer, in the middle of uploads."""

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import Generator
from datetime import timedelta
from pathlib import Path
from typing import Final

import httpx2
import pytest

from api.app import App
from consumers.meters import Meter
from consumers.orphans import Orphans
from ledger.objects import open_objects, task_of
from ledger.redis_store import RedisStore
from ledger.rejections import Rejection, RejectionCode
from ledger.settings import Settings
from tests.api.uploading import FORM, KB, UPLOAD, file, files_in, form, upload
from tests.consumers.role_process import RoleProcess, role_process

PATIENCE_S: Final = 20


@pytest.fixture
def settings(tmp_path: Path, ledger_url: str) -> Settings:
    return Settings(data_dir=str(tmp_path), redis_url=ledger_url, port=0, grpc_port=0)


@contextlib.contextmanager
def api_process(settings: Settings, tmp_path: Path) -> Generator[tuple[RoleProcess, int]]:
    """A process that serves the API, and its port."""
    arguments = ("-m", "api.cli", "api", "--log-format", "json")
    with role_process(*arguments, cwd=tmp_path, settings=settings) as process:
        yield process, process.wait_for("api_started")["port"]


def send(port: int, body: bytes, length: int) -> socket.socket:
    """The beginning of an upload of `length` bytes."""
    head = (
        f"POST {UPLOAD} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n"
        f"content-type: {FORM['content-type']}\r\n\r\n"
    )
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(head.encode() + body)
    return connection


def until_there(settings: Settings, under: str) -> Path:
    """The first file whose path holds `under`."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        for path in files_in(settings):
            if under in str(path):
                return path
        time.sleep(0.001)
    raise TimeoutError(f"no file under {under}")


def sweep(store: RedisStore, settings: Settings) -> Orphans:
    """What looks at everything, however new."""
    # A second of margin: the file system's clock ticks less often than ours.
    older_than = timedelta(seconds=-1)
    return Orphans(store, open_objects(settings), Meter(), older_than=older_than)


def test_what_a_killed_process_was_receiving_is_cleared_by_the_next(
    settings: Settings, tmp_path: Path
):
    body = form(KB, file(b"x" * 1_000_000))
    with api_process(settings, tmp_path) as (process, port):
        with send(port, body[:-100_000], len(body)):
            until_there(settings, "incoming")
            process.signal(signal.SIGKILL)
            process.wait()
    assert files_in(settings)

    with api_process(settings, tmp_path) as (process, _):
        process.wait_for("broken_uploads_cleared")

        assert files_in(settings) == []


def test_the_next_process_leaves_alone_what_another_is_receiving(
    settings: Settings, tmp_path: Path
):
    body = form(KB, file(b"x" * 1_000_000))
    with api_process(settings, tmp_path) as (_, port):
        with send(port, body[:-100_000], len(body)) as connection:
            until_there(settings, "incoming")
            with api_process(settings, tmp_path):
                connection.sendall(body[-100_000:])

                answer = connection.recv(65_536)

    assert answer.startswith(b"HTTP/1.1 201 ")


async def test_after_a_kill_an_object_is_there_if_its_task_is(
    store: RedisStore, settings: Settings, tmp_path: Path
):
    body = form(KB, file(b"x" * 1_000))
    with api_process(settings, tmp_path) as (process, port), send(port, body, len(body)):
        stored = await asyncio.to_thread(until_there, settings, "uploads")
        process.signal(signal.SIGKILL)
        await asyncio.to_thread(process.wait)

    await sweep(store, settings).step()

    task = await store.load(task_of("/".join(stored.parts[-4:])) or "")
    assert files_in(settings) == ([stored] if task else [])


async def test_what_may_have_been_submitted_is_left_to_the_sweep(
    api: httpx2.AsyncClient,
    app: App,
    store: RedisStore,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
):
    async def unknown(*_: object) -> None:
        raise Rejection(RejectionCode.SERVICE_UNAVAILABLE, "no answer in time")

    monkeypatch.setattr(app.submissions, "submit", unknown)
    answer = await upload(api, KB, file())
    assert answer.status_code == 503
    (orphan,) = files_in(settings)

    await sweep(store, settings).step()

    assert files_in(settings) == [], orphan
