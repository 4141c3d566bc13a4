"""One running service for all client commands, and commands called in this process."""

import asyncio
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.cli import main
from tests.cli.running import Call, Ran, Up, up
from tests.servers import empty


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("service")
    with up(folder, LEDGERQ_ARCHIVE_SEAL_INTERVAL_MS="100") as running:
        yield running


@pytest.fixture
def ledgerq(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Call:
    """Calls a command in this process; `stdin` is what it reads."""
    for name in [name for name in os.environ if name.startswith("LEDGERQ_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str, stdin: str = "") -> Ran:
        monkeypatch.setattr(sys, "argv", ["ledgerq", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        capsys.readouterr()
        try:
            code = main()
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        return Ran(code, out, err)

    return call


@pytest.fixture
def empty_url(valkey_url: str) -> Iterator[str]:
    """A server in memory, without any key; nothing stays on it."""
    asyncio.run(empty(valkey_url))
    yield valkey_url
    asyncio.run(empty(valkey_url))


@pytest.fixture
def client(ledgerq: Call, service: Up, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Commands that find the running service."""
    monkeypatch.setenv("LEDGERQ_URL", service.url)
    return ledgerq
