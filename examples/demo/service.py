"""`ledgerq up` and the knowledge service as the story runs them: real commands, in processes of
their own."""

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import AsyncGenerator, Collection, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from api.client import AsyncClient, LedgerqError, Retries

from .failures import DemoError, require
from .knowledge import Knowledge, calling
from .processes import Process, descendants, still_running

HANDLERS: Final = "examples.knowledge_service.handlers"
KB_ID: Final = "python"
WORKERS: Final = 2
CONCURRENCY: Final = 8
LEASE_MS: Final = 2_000

READY_TIMEOUT_S: Final = 30
STOP_TIMEOUT_S: Final = 20
LOG_LINES_SHOWN: Final = 15
_LOOK_AGAIN_S: Final = 0.05

_INSTALLED: Final = Path(sys.executable).with_name("ledgerq")

COMMAND: Final = [str(_INSTALLED)] if _INSTALLED.exists() else [sys.executable, "-m", "api.cli"]
"""`ledgerq`, as it was installed beside this Python, else the module that it is."""

_SETTINGS: Final = {
    # By default a lost worker's tasks are its own for 15 s; a story has less patience.
    "LEDGERQ_LEASE_MS": str(LEASE_MS),
    "LEDGERQ_HEARTBEAT_MS": "250",
    "LEDGERQ_PENDING_IDLE_MS": "1000",
    "LEDGERQ_LOG_FORMAT": "text",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where the services keep their data and listen, the same ones after a restart; and what both
    know, to sign callbacks with and to check them."""

    folder: Path
    ledgerq_port: int
    grpc_port: int
    knowledge_port: int
    secret: str

    @property
    def data(self) -> Path:
        """Of ledgerq."""
        return self.folder / "ledger"

    @property
    def ledgerq_url(self) -> str:
        return f"http://127.0.0.1:{self.ledgerq_port}"

    @property
    def knowledge_url(self) -> str:
        return f"http://127.0.0.1:{self.knowledge_port}"

    def environment(self) -> dict[str, str]:
        """Of ledgerq's settings only those of the story, and this repository's root to import."""
        ours = {
            name: value for name, value in os.environ.items() if not name.startswith("LEDGERQ_")
        }
        root = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        return {
            **ours,
            **_SETTINGS,
            "LEDGERQ_CALLBACK_SECRETS": self.secret,
            "LEDGERQ_URL": self.ledgerq_url,
            "LEDGERQ_WEBSOCKET_ORIGINS": self.knowledge_url,
            "KNOWLEDGE_DB": str(self.folder / "knowledge.db"),
            "KNOWLEDGE_URL": self.knowledge_url,
            "PYTHONPATH": path,
        }


def place_in(folder: Path) -> Place:
    """A place with its data in `folder`, on free ports."""
    with contextlib.ExitStack() as open_at_once:
        probes = [
            open_at_once.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)
        ]
        ledgerq, grpc, knowledge = (int(probe.getsockname()[1]) for probe in probes)
    secret = "whsec_" + b64encode(secrets.token_bytes(32)).decode()
    return Place(folder, ledgerq, grpc, knowledge, secret)


class Program:
    """A process, and those that it starts."""

    def __init__(self, name: str, command: Sequence[str], place: Place) -> None:
        self._name = name
        self._family = list[Process]()
        """What it had started when it was ready: a killed one has no descendants any more."""
        with log_file(place.folder).open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                command,
                env=place.environment(),
                cwd=place.folder,
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

    def descendants(self) -> list[Process]:
        """What it has started, and that runs."""
        return descendants(self._process.pid)

    def is_ready(self) -> None:
        """Take note of all that it has started."""
        self._family = self.descendants()

    def require_alive(self) -> None:
        """Raises DemoError when it has ended."""
        code = self.exit_code
        require(code is None, f"{self._name} ended too early, with exit code {code}")

    def stop(self) -> None:
        """SIGTERM, and what must follow: a clean end, with every process that it started.

        Raises DemoError. Nothing runs any more afterwards, whatever went wrong.
        """
        family = {*self._family, *self.descendants()}
        self._process.terminate()
        try:
            status = self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise DemoError(f"{self._name} had not stopped after {STOP_TIMEOUT_S} s") from None
        finally:
            self._process.kill()
            self._process.wait()
            left = _outlived(family)
        # uvicorn ends in an orderly way, then by the signal that told it to.
        require(status in (0, -signal.SIGTERM), f"{self._name} ended with exit code {status}")
        require(not left, f"{self._name} left processes behind: {left}")


class Services:
    """A running `ledgerq up`, the knowledge service beside it, and how to talk to both."""

    def __init__(self, place: Place, client: AsyncClient, knowledge: Knowledge) -> None:
        self.url = place.ledgerq_url
        self.knowledge_url = place.knowledge_url
        self.client = client
        self.knowledge = knowledge
        ports = ("--port", str(place.ledgerq_port), "--grpc-port", str(place.grpc_port))
        workers = ("--workers", str(WORKERS), "--concurrency", str(CONCURRENCY))
        where = ("--data-dir", str(place.data))
        command = [*COMMAND, "up", *ports, *where, *workers, "--handlers", HANDLERS]
        self._ledgerq = Program("ledgerq up", command, place)
        web = [sys.executable, "-m", "examples.knowledge_service"]
        self._web = Program(
            "the knowledge service", [*web, "--port", str(place.knowledge_port)], place
        )
        self.programs = (self._web, self._ledgerq)
        """In the order in which they are stopped."""

    def workers(self) -> list[int]:
        """The process ids of the workers that run."""
        return [
            process.pid
            for process in self._ledgerq.descendants()
            if " consumers.roles worker" in process.command
        ]

    async def until_ready(self) -> None:
        """Wait until they take tasks and the workers are there. Raises DemoError."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not (await self._answer() and len(self.workers()) == WORKERS):
            for program in self.programs:
                program.require_alive()
            require(
                time.monotonic() < deadline,
                f"the services were not ready after {READY_TIMEOUT_S} s",
            )
            await asyncio.sleep(_LOOK_AGAIN_S)
        for program in self.programs:
            program.is_ready()

    async def another_worker(self, known: Collection[int]) -> int:
        """Wait for a worker that is not one of the `known` ones. Raises DemoError."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not (new := set(self.workers()).difference(known)):
            require(
                time.monotonic() < deadline, f"no worker was started anew in {READY_TIMEOUT_S} s"
            )
            await asyncio.sleep(_LOOK_AGAIN_S)
        return new.pop()

    async def _answer(self) -> bool:
        try:
            await self.client.system_stats()
        except LedgerqError:
            return False
        return await self.knowledge.is_ready()


@contextlib.asynccontextmanager
async def running(place: Place) -> AsyncGenerator[Services]:
    """The services, ready for tasks; stopped at the end."""
    # While they start, and when they die, nobody is to wait for an answer.
    once = Retries(calls_max=1)
    async with (
        AsyncClient(place.ledgerq_url, retries=once) as client,
        calling(place.knowledge_url, KB_ID) as knowledge,
    ):
        with contextlib.ExitStack() as stopping:
            services = Services(place, client, knowledge)
            for program in reversed(services.programs):
                stopping.enter_context(_stopped(program))
            try:
                await services.until_ready()
                yield services
            except Exception as error:
                for program in services.programs:
                    try:
                        program.require_alive()
                    except DemoError as reason:
                        raise reason from error
                raise


@contextlib.contextmanager
def _stopped(program: Program) -> Generator[None]:
    """Stop it at the end, whatever happens to the others; what went wrong first is what counts."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(DemoError):
            program.stop()
        raise
    program.stop()


def log_file(folder: Path) -> Path:
    """Where the services that had their data in `folder` wrote their log records."""
    return folder / "service.log"


def last_words(folder: Path) -> list[str]:
    """The end of the services' log."""
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
