"""`ledgerq up` as the story runs it: the real command, in a process of its own."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Collection
from pathlib import Path
from typing import Final

from .client import Client, connected
from .failures import DemoError, require
from .processes import Process, descendants, still_running

HANDLERS: Final = "examples.knowledge_service.handlers"
WORKERS: Final = 2
CONCURRENCY: Final = 8
LEASE_MS: Final = 2_000

READY_TIMEOUT_S: Final = 30
STOP_TIMEOUT_S: Final = 20
LOG_LINES_SHOWN: Final = 15
_LOOK_AGAIN_S: Final = 0.05

_SETTINGS: Final = {
    # By default a lost worker's tasks are its own for 15 s; a story has less patience.
    "LEDGERQ_LEASE_MS": str(LEASE_MS),
    "LEDGERQ_HEARTBEAT_MS": "250",
    "LEDGERQ_PENDING_IDLE_MS": "1000",
    "LEDGERQ_LOG_FORMAT": "text",
}


class Service:
    """A running `ledgerq up`."""

    def __init__(self, folder: Path) -> None:
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        where = ("--port", str(port), "--grpc-port", "0", "--data-dir", str(folder / "ledger"))
        workers = ("--workers", str(WORKERS), "--concurrency", str(CONCURRENCY))
        self._family = list[Process]()
        """What it had started when it was ready: a killed service has no descendants any more."""
        with log_file(folder).open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                [*_ledgerq(), "up", *where, *workers, "--handlers", HANDLERS],
                env=_environment(folder),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C in a terminal goes to a whole group: the service ends when told by us.
                start_new_session=True,
            )

    @property
    def exit_code(self) -> int | None:
        """None while it runs; minus the number of the signal that killed it."""
        return self._process.poll()

    def workers(self) -> list[int]:
        """The process ids of the workers that run."""
        return [
            process.pid
            for process in descendants(self._process.pid)
            if " consumers.roles worker" in process.command
        ]

    async def until_ready(self, client: Client) -> None:
        """Wait until it takes tasks and its workers are there. Raises DemoError."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not (await client.is_ready() and len(self.workers()) == WORKERS):
            require(self.exit_code is None, "ledgerq up ended while starting")
            require(
                time.monotonic() < deadline, f"ledgerq up was not ready after {READY_TIMEOUT_S} s"
            )
            await asyncio.sleep(_LOOK_AGAIN_S)
        self._family = descendants(self._process.pid)

    async def another_worker(self, known: Collection[int]) -> int:
        """Wait for a worker that is not one of the `known` ones. Raises DemoError."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not (new := set(self.workers()).difference(known)):
            require(
                time.monotonic() < deadline, f"no worker was started anew in {READY_TIMEOUT_S} s"
            )
            await asyncio.sleep(_LOOK_AGAIN_S)
        return new.pop()

    def stop(self) -> None:
        """SIGTERM, and what must follow: a clean end, with every process that it started.

        Raises DemoError. Nothing runs any more afterwards, whatever went wrong.
        """
        family = {*self._family, *descendants(self._process.pid)}
        self._process.terminate()
        try:
            status = self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise DemoError(f"ledgerq up had not stopped after {STOP_TIMEOUT_S} s") from None
        finally:
            self._process.kill()
            self._process.wait()
            left = _outlived(family)
        require(status == 0, f"ledgerq up ended with exit code {status}")
        require(not left, f"ledgerq up left processes behind: {left}")


@contextlib.asynccontextmanager
async def running(folder: Path) -> AsyncGenerator[tuple[Service, Client]]:
    """A service with its data in `folder`, ready for tasks; stopped at the end."""
    service = Service(folder)
    try:
        async with connected(service.url) as client:
            await service.until_ready(client)
            yield service, client
    except BaseException as error:
        ended = service.exit_code
        # What went wrong first is what counts.
        with contextlib.suppress(DemoError):
            service.stop()
        if ended is not None and isinstance(error, Exception):
            raise DemoError(f"ledgerq up ended too early, with exit code {ended}") from error
        raise
    service.stop()


def log_file(folder: Path) -> Path:
    """Where the services that had their data in `folder` wrote their log records."""
    return folder / "service.log"


def knowledge_db(folder: Path) -> Path:
    """Where the handlers keep documents, chunks and the index."""
    return folder / "knowledge.db"


def last_words(folder: Path) -> list[str]:
    """The end of the service's log."""
    try:
        return log_file(folder).read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
    except OSError:
        return []


def _outlived(family: set[Process]) -> list[Process]:
    """Who does not end with the service, in reasonable time; killed then."""
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while (left := still_running(family)) and time.monotonic() < deadline:
        time.sleep(_LOOK_AGAIN_S)
    for process in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    return left


def _ledgerq() -> list[str]:
    """The command as it was installed beside this Python, else the module that it is."""
    installed = Path(sys.executable).with_name("ledgerq")
    return [str(installed)] if installed.exists() else [sys.executable, "-m", "api.cli"]


def _environment(folder: Path) -> dict[str, str]:
    """Of ledgerq's settings only those of the story, and the root of this repository to import."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("LEDGERQ_")}
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    return {**ours, **_SETTINGS, "KNOWLEDGE_DB": str(knowledge_db(folder)), "PYTHONPATH": path}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]
