"""Keeps child processes running: starts them, restarts one that dies, stops them in order.

A child cannot outlive its supervisor, even one that is killed with SIGKILL: on Linux the kernel
sends the child SIGTERM then (see `ledger/embedded/exec_tied.py`); elsewhere a child watches its
standard input, a pipe that nobody but the supervisor holds (see `end_with_parent`).
"""

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec
import structlog

from consumers.own_modules import describe_exit, tied_argv, with_our_packages
from consumers.service import backoff_s

log = structlog.get_logger("pool")

UNUSABLE: Final = 78
"""Exit code (EX_CONFIG in sysexits.h) of a child that cannot run with its settings: a missing
handlers' module, another ledger's server. As a child's first exit it ends the pool."""

CHILD_NAME: Final = "{name}"
"""An item of a command line that stands for the child's name, such as `worker-2`."""

CHILD_NUMBER: Final = "{number}"
"""An item that stands for the child's number among those of its program, the first being 1."""

NOT_STARTED: Final = 125
"""Stands for the exit code of a child for which there was no process to be had."""

STABLE_AFTER_S: Final = 30.0
"""A child that stayed up so long is restarted at once again, without a growing pause."""

KILL_TIMEOUT_S: Final = 10.0
"""Until a killed process is gone: it can take as long as the disk does."""

_ON_LINUX: Final = sys.platform == "linux"


class Program(msgspec.Struct, frozen=True):
    """One kind of child process."""

    name: str
    argv: tuple[str, ...]
    """The command line, whose first item is the program's absolute path; see CHILD_NAME,
    CHILD_NUMBER."""
    env: Mapping[str, str]
    """The whole environment, looked at anew for each start."""
    count: int = 1
    stop_timeout_s: float = 10.0
    """From SIGTERM to SIGKILL."""
    inherited: tuple[int, ...] = ()
    """File descriptors that the child shares with the supervisor."""


class CannotRun(Exception):
    """A child said, as the first thing it did, that it cannot run; why is on standard error."""

    def __init__(self, child: str) -> None:
        super().__init__(f"{child} cannot run, and said why above; everything is stopped")
        self.child = child


class Pool:
    """`run` until `stop`. The children of the first program are stopped first."""

    def __init__(
        self,
        programs: Sequence[Program],
        *,
        backoff: Callable[[int], float] = backoff_s,
        stable_after_s: float = STABLE_AFTER_S,
    ) -> None:
        self._children = {
            program.name: [
                _Child(program, number, backoff, stable_after_s)
                for number in range(1, program.count + 1)
            ]
            for program in programs
        }
        self._stopping = asyncio.Event()
        self._failure: CannotRun | None = None

    def pids(self) -> dict[str, list[int]]:
        """Process ids by program, of those that run at the moment."""
        return {
            name: [child.pid for child in children if child.pid is not None]
            for name, children in self._children.items()
        }

    def stop(self) -> None:
        """End all children in order: SIGTERM, a bounded wait, then SIGKILL."""
        self._stopping.set()

    def kill(self) -> None:
        """SIGKILL to all children at once. Without `stop` before, they are started again."""
        for children in self._children.values():
            for child in children:
                if self._stopping.is_set():
                    # Its turn to be told had perhaps not come yet: this is no death to make good.
                    child.end()
                child.kill()

    async def started(self) -> None:
        """Return once every child has been started, whatever became of it since."""
        for children in self._children.values():
            for child in children:
                await child.started.wait()

    async def run(self) -> None:
        """Keep the children running until `stop`. Raises CannotRun, all others stopped."""
        async with asyncio.TaskGroup() as group:
            for children in self._children.values():
                for child in children:
                    group.create_task(self._keep(child))
            await self._stopping.wait()
            for children in self._children.values():
                await _end(children)
        if self._failure is not None:
            raise self._failure

    async def _keep(self, child: "_Child") -> None:
        try:
            await child.keep()
        except CannotRun as failure:
            self._failure = self._failure or failure
            self.stop()


async def _end(children: Sequence["_Child"]) -> None:
    """Stop the children of one program side by side."""
    for child in children:
        child.end()
    timeout_s = max((child.stop_timeout_s for child in children), default=0.0)
    try:
        async with asyncio.timeout(timeout_s):
            await asyncio.gather(*(child.gone.wait() for child in children))
    except TimeoutError:
        for child in children:
            if child.pid is not None:
                log.error("process_killed", process=child.name, pid=child.pid, after_s=timeout_s)
                child.kill()
        await asyncio.gather(*(child.gone.wait() for child in children))


class _Child:
    """One process of a program, and those that take its place."""

    def __init__(
        self, program: Program, number: int, backoff: Callable[[int], float], stable_after_s: float
    ) -> None:
        self.name = f"{program.name}-{number}" if program.count > 1 else program.name
        self.stop_timeout_s = program.stop_timeout_s
        self.started = asyncio.Event()
        self.gone = asyncio.Event()
        self._program = program
        stand_ins = {CHILD_NAME: self.name, CHILD_NUMBER: str(number)}
        self._argv = [stand_ins.get(item, item) for item in program.argv]
        self._backoff = backoff
        self._stable_after_s = stable_after_s
        self._ending = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """None while there is no process."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    def end(self) -> None:
        """Ask the process to end, and start no other."""
        self._ending.set()
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the process at once, with what it started in its group."""
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    async def keep(self) -> None:
        """Run the process, again and again, until `end`. Raises CannotRun."""
        deaths = 0
        try:
            while not self._ending.is_set():
                started_at = time.monotonic()
                exit_status = await self._run_once()
                up_s = time.monotonic() - started_at
                if self._ending.is_set():
                    return
                if exit_status == UNUSABLE and not deaths:
                    raise CannotRun(self.name)
                deaths = 1 if up_s >= self._stable_after_s else deaths + 1
                await self._pause(exit_status, up_s, self._backoff(deaths))
        finally:
            self.gone.set()

    async def _pause(self, exit_status: int, up_s: float, pause_s: float) -> None:
        """Report a death, and let some time pass."""
        log.error(
            "process_died",
            process=self.name,
            exit=describe_exit(exit_status),
            up_s=round(up_s, 1),
            restart_in_s=round(pause_s, 1),
        )
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ending.wait(), pause_s)

    async def _run_once(self) -> int:
        """Start the process and wait for its end; its exit code, or minus a signal's number."""
        try:
            process = self._process = await self._spawn()
        except OSError as error:
            log.error("process_not_started", process=self.name, reason=str(error))
            return NOT_STARTED
        self.started.set()
        log.debug("process_started", process=self.name, pid=process.pid)
        if self._ending.is_set():
            self._signal(signal.SIGTERM)
        try:
            return await process.wait()
        finally:
            if process.returncode is None:
                self.kill()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), KILL_TIMEOUT_S)

    async def _spawn(self) -> asyncio.subprocess.Process:
        program = self._program
        return await asyncio.create_subprocess_exec(
            *tied_argv(self._argv),
            stdin=asyncio.subprocess.DEVNULL if _ON_LINUX else asyncio.subprocess.PIPE,
            env=with_our_packages(program.env),
            pass_fds=program.inherited,
            # Ctrl-C in a terminal goes to a whole group: what ends first is decided here.
            start_new_session=True,
        )

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)


def end_with_parent() -> None:
    """Called by a child, where the kernel does not tell it that its supervisor died: SIGTERM to
    itself once its standard input, which only the supervisor holds, is at its end."""
    if not _ON_LINUX:
        watch_input(0)


def watch_input(descriptor: int) -> None:
    """SIGTERM to this process once a pipe that nobody writes to has no writer any more."""

    def watch() -> None:
        while os.read(descriptor, 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()
