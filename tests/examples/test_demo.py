"""The demo as it is run: what it shows, that it fails when it must, and that it leaves nothing."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from examples.demo.processes import descendants

ROOT = Path(__file__).parents[2]
END_TIMEOUT_S = 100


@pytest.fixture
def scratch() -> Generator[Path]:
    """An empty folder with a short name. Where names are too long for a socket, as pytest's may be,
    a service has its socket elsewhere, and there it stays when the service is killed."""
    with tempfile.TemporaryDirectory(prefix="lq-") as folder:
        yield Path(folder)


@contextlib.contextmanager
def demo(scratch: Path, *arguments: str) -> Generator[subprocess.Popen[str]]:
    """The demo with its temporary files in `scratch`, which also marks all its processes."""
    process = subprocess.Popen(
        [sys.executable, "-m", "examples.demo", *arguments],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(scratch)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=END_TIMEOUT_S)


def read_until(process: subprocess.Popen[str], word: str) -> None:
    """Read what the demo tells up to a line with `word`."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if word in line:
            return
    pytest.fail(f"the demo ended before it told {word!r}: {''.join(lines)}")


def left_behind(scratch: Path) -> list[str]:
    """Files in `scratch`, and processes that have it in their environment."""
    mark = f"TMPDIR={scratch}".encode()
    found = [str(path) for path in scratch.iterdir()]
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark in environment.read_bytes().split(b"\0"):
                found.append(str(environment))
    return found


@pytest.mark.timeout(END_TIMEOUT_S + 20)
def test_the_whole_story_holds(scratch: Path) -> None:
    with demo(scratch, "--documents", "100") as process:
        told, _ = process.communicate(timeout=END_TIMEOUT_S)
    assert process.returncode == 0, told
    assert "100 of 100 documents" in told
    assert "worker_lost" in told
    assert "heapq.py" in told
    assert "TAMPERED" in told
    assert max(map(len, told.splitlines())) <= 80
    assert left_behind(scratch) == []


def test_a_service_that_dies_makes_the_story_fail(scratch: Path) -> None:
    with demo(scratch, "--documents", "80") as process:
        read_until(process, "Ready after")
        (service,) = [p for p in descendants(process.pid) if " up " in p.command]
        os.kill(service.pid, signal.SIGKILL)
        told, _ = process.communicate(timeout=END_TIMEOUT_S)
    assert process.returncode == 1, told
    assert "The demo failed: ledgerq up ended too early, with exit code -9" in told
    assert left_behind(scratch) == [], told


def test_an_interrupted_story_leaves_nothing_behind(scratch: Path) -> None:
    """SIGTERM is made into what ctrl-C sends, so this is about both."""
    with demo(scratch, "--documents", "80") as process:
        read_until(process, "Ready after")
        process.send_signal(signal.SIGTERM)
        told, _ = process.communicate(timeout=END_TIMEOUT_S)
    assert process.returncode == 128 + signal.SIGINT, told
    assert "Interrupted" in told
    assert left_behind(scratch) == []


def test_what_was_there_is_not_written_over(scratch: Path) -> None:
    (scratch / "mine").write_text("mine")
    with demo(scratch, "--keep", str(scratch)) as process:
        told, _ = process.communicate(timeout=END_TIMEOUT_S)
    assert process.returncode == 2
    assert "is not an empty folder" in told
    assert left_behind(scratch) == [str(scratch / "mine")]
