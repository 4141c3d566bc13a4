"""Keeps child processes running: starts them, restarts one that dies or stands still, replaces one
that wants to leave, stops them in order.

A child cannot outlive its supervisor, even one that is killed with SIGKILL: on Linux the kernel
sends the child TOLD_TO_END then (see `ledger/embedded/exec_tied.py`); elsewhere a child watches its
standard input, a pipe that nobody but the supervisor holds (see `end_with_parent`).
"""

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec
import structlog

from consumers.child_process import ON_LINUX, ChildProcess
from consumers.own_modules import describe_exit
from consumers.service import backoff_s
from consumers.signals import TOLD_TO_END

log = structlog.get_logger("pool")

UNUSABLE: Final = 78
"""Exit code (EX_CONFIG in sysexits.h) of a child that cannot run with its settings: a missing
handlers' module, another ledger's server. As a place's first exit, before any process lived there,
it ends the pool; later on it is a death like others, and the rest of the pool goes on."""

CHILD_NAME: Final = "{name}"
"""An item of a command line that stands for the child's name, such as `worker-2`."""

CHILD_NUMBER: Final = "{number}"
"""An item that stands for the child's number among those of its program, the first being 1."""

NOT_STARTED: Final = 125
"""Stands for the exit code of a child for which there was no process to be had."""

STABLE_AFTER_S: Final = 30.0
"""A child that stayed up so long is restarted, or replaced, without a growing pause."""

LEAVING_MAX: Final = 2
"""Processes that left their place and still let their tasks finish, for each place; of more than
that, the oldest is told to end within its drain time-out, and no other starts before one ended."""


class Program(msgspec.Struct, frozen=True):
    """One kind of child process."""

    name: str
    argv: tuple[str, ...]
    """The command line, whose first item is the program's absolute path; see CHILD_NAME,
    CHILD_NUMBER, CHILD_LIVENESS."""
    env: Mapping[str, str]
    """The whole environment, looked at anew for each start."""
    count: int = 1
    stop_timeout_s: float = 10.0
    """From TOLD_TO_END to SIGKILL."""
    inherited: tuple[int, ...] = ()
    """File descriptors that the child shares with the supervisor."""
    silence_timeout_s: float = 30.0
    """A child that tells that it moves (CHILD_LIVENESS) is killed when it does not for so long."""


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
            name: [pid for child in children for pid in child.pids]
            for name, children in self._children.items()
        }

    def stop(self) -> None:
        """End all children in order: TOLD_TO_END, a bounded wait, then SIGKILL."""
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
            for pid in child.pids:
                log.error("process_killed", process=child.name, pid=pid, after_s=timeout_s)
            child.kill()
        await asyncio.gather(*(child.gone.wait() for child in children))


class _Child:
    """A place in the pool: one process, those that take its place, and those that left it and have
    still to end."""

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
        self._processes: list[ChildProcess] = []
        """The oldest first."""
        self._lives: set[asyncio.Task[int]] = set()
        self._ever_lived = False
        """Whether a process of this place got as far as to run, and not only to find out whether it
        can."""
        self._kills = 0

    @property
    def pids(self) -> list[int]:
        """Of the process, and of those that it replaced and that have not ended yet."""
        return [process.pid for process in self._processes if process.pid is not None]

    def end(self) -> None:
        """Ask the process to end, and start no other."""
        self._ending.set()
        for process in self._processes:
            process.end()

    def kill(self) -> None:
        """End the process at once, with what it started in its group; also one that is just being
        started."""
        self._kills += 1
        for process in self._processes:
            process.kill()

    async def keep(self) -> None:
        """Run the process, again and again, until `end`. Raises CannotRun."""
        try:
            await self._keep_one()
            while self._lives:
                await asyncio.wait(self._lives)
        finally:
            for life in self._lives:
                life.cancel()
            if self._lives:
                await asyncio.wait(self._lives)
            self.gone.set()

    async def _keep_one(self) -> None:
        short_lives = 0
        while not self._ending.is_set():
            started_at = time.monotonic()
            exit_status = await self._run_once()
            up_s = time.monotonic() - started_at
            if self._ending.is_set():
                return
            stable = up_s >= self._stable_after_s
            self._ever_lived = self._ever_lived or stable
            if exit_status == UNUSABLE and not short_lives and not self._ever_lived:
                raise CannotRun(self.name)
            short_lives = 1 if stable else short_lives + 1
            if exit_status is not None:
                await self._pause_after_death(exit_status, up_s, self._backoff(short_lives))
            elif not stable:
                await self._pause_after_leaving(up_s, self._backoff(short_lives))
            await self._wait_for_room()

    async def _pause_after_death(self, exit_status: int, up_s: float, pause_s: float) -> None:
        log.error(
            "process_died",
            process=self.name,
            exit=describe_exit(exit_status),
            up_s=round(up_s, 1),
            restart_in_s=round(pause_s, 1),
        )
        await self._pause(pause_s)

    async def _pause_after_leaving(self, up_s: float, pause_s: float) -> None:
        """Without a pause, bounds that every process is over would do nothing but start others."""
        log.warning(
            "process_left_early",
            process=self.name,
            up_s=round(up_s, 1),
            replaced_in_s=round(pause_s, 1),
            hint="its bound is soon reached: raise max_tasks, max_memory_mib",
        )
        await self._pause(pause_s)

    async def _pause(self, pause_s: float) -> None:
        """Let some time pass, unless there is nothing to start any more."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ending.wait(), pause_s)

    async def _wait_for_room(self) -> None:
        """Return once few enough processes that left have still to end. The oldest of too many is
        told to, and killed when it does not."""
        while len(self._processes) > LEAVING_MAX and not self._ending.is_set():
            oldest = self._processes[0]
            oldest.end()
            log.warning(
                "replacement_waits",
                process=self.name,
                leaving=self.pids,
                told_to_end=oldest.pid,
                hint="they leave faster than their tasks end: raise max_tasks, max_memory_mib",
            )
            ended, _ = await asyncio.wait(
                self._lives, timeout=self.stop_timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            if not ended:
                log.error(
                    "process_killed",
                    process=self.name,
                    pid=oldest.pid,
                    after_s=self.stop_timeout_s,
                )
                oldest.kill()

    async def _run_once(self) -> int | None:
        """Start the process and wait for its end; its exit code, or minus a signal's number. None
        when it leaves its place to another one, and ends later."""
        kills = self._kills
        try:
            program = self._program
            process = await ChildProcess.spawn(
                self.name, self._argv, program.env, program.inherited
            )
        except OSError as error:
            log.error("process_not_started", process=self.name, reason=str(error))
            return NOT_STARTED
        life, leaving = self._begin(process)
        if self._kills != kills:
            process.kill()
        pid = process.pid
        try:
            await asyncio.wait((life, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
        self._ever_lived = self._ever_lived or process.moved
        if not leaving.done():
            return life.result()
        # It may have ended since, before a busy supervisor came round to listen.
        log.info("process_leaving", process=self.name, pid=pid, why=leaving.result())
        return None

    def _begin(self, process: ChildProcess) -> tuple[asyncio.Task[int], asyncio.Task[str]]:
        loop = asyncio.get_running_loop()
        self._processes.append(process)
        life = loop.create_task(process.live(self._program.silence_timeout_s))
        self._lives.add(life)

        def forget(ended: asyncio.Task[int]) -> None:
            self._lives.discard(ended)
            self._processes.remove(process)

        life.add_done_callback(forget)
        self.started.set()
        log.debug("process_started", process=self.name, pid=process.pid)
        if self._ending.is_set():
            process.end()
        return life, loop.create_task(process.leaving())


def end_with_parent() -> None:
    """Called by a child, where the kernel does not tell it that its supervisor died: TOLD_TO_END to
    itself once its standard input, which only the supervisor holds, is at its end."""
    if not ON_LINUX:
        watch_input(0)


def watch_input(descriptor: int) -> None:
    """TOLD_TO_END to this process once a pipe that nobody writes to has no writer any more."""

    def watch() -> None:
        while os.read(descriptor, 1024):
            pass
        os.kill(os.getpid(), TOLD_TO_END)

    threading.Thread(target=watch, name="parent", daemon=True).start()
