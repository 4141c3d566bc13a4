"""One process of a pool, from its start to its end: watched, told to end, killed."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Final, Self

import structlog

from consumers.liveness import Listener
from consumers.own_modules import tied_argv, with_our_packages
from consumers.signals import TOLD_TO_END

log = structlog.get_logger("pool")

CHILD_LIVENESS: Final = "{liveness}"
"""An item of a command line that stands for the descriptor on which the child tells that it moves
(`consumers.liveness`). A child without one is not watched."""

KILL_TIMEOUT_S: Final = 10.0
"""Until a killed process is gone: it can take as long as the disk does."""

ON_LINUX: Final = sys.platform == "linux"


class ChildProcess:
    """Made with `spawn`; then `live` is to be awaited."""

    def __init__(
        self, name: str, process: asyncio.subprocess.Process, listener: Listener | None
    ) -> None:
        self._name = name
        self._process = process
        self._listener = listener
        self._told_to_end = False

    @classmethod
    async def spawn(
        cls,
        name: str,
        argv: Sequence[str],
        env: Mapping[str, str],
        inherited: tuple[int, ...],
    ) -> Self:
        """Raises OSError when there is no process to be had."""
        listener = Listener() if CHILD_LIVENESS in argv else None
        try:
            if listener is not None:
                inherited = (*inherited, listener.write_end)
                line = str(listener.write_end)
                argv = [line if item == CHILD_LIVENESS else item for item in argv]
            process = await asyncio.create_subprocess_exec(
                *tied_argv(argv, TOLD_TO_END),
                stdin=asyncio.subprocess.DEVNULL if ON_LINUX else asyncio.subprocess.PIPE,
                env=with_our_packages(env),
                pass_fds=inherited,
                # Ctrl-C in a terminal goes to a whole group: what ends first is decided here.
                start_new_session=True,
            )
        except BaseException:
            if listener is not None:
                listener.close()
            raise
        if listener is not None:
            listener.close_theirs()
        return cls(name, process, listener)

    @property
    def pid(self) -> int | None:
        """None once it has ended."""
        return self._process.pid if self._process.returncode is None else None

    @property
    def moved(self) -> bool:
        """Whether it ever told that its event loop moves."""
        return self._listener is not None and self._listener.heard

    async def live(self, silence_timeout_s: float) -> int:
        """Return at its end: its exit code, or minus a signal's number. One that is silent for too
        long is killed. Cancelling kills it."""
        watching = asyncio.get_running_loop().create_task(self._watch(silence_timeout_s))
        try:
            return await self._process.wait()
        finally:
            watching.cancel()
            if self._process.returncode is None:
                self.kill()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._process.wait(), KILL_TIMEOUT_S)
            if self._listener is not None:
                self._listener.close()

    async def leaving(self) -> str:
        """Return once it says that another one may take its place: why."""
        if self._listener is None:
            await asyncio.Event().wait()
        assert self._listener is not None  # noqa: S101 - the line above waits for ever
        await self._listener.leaving.wait()
        return self._listener.why

    def end(self) -> None:
        """Ask it to end, once."""
        if not self._told_to_end and self.pid is not None:
            self._told_to_end = True
            # Not `send_signal`: it may notice the end before the loop, which then learns nothing.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, TOLD_TO_END)

    def kill(self) -> None:
        """End it at once, with what it started in its group."""
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    async def _watch(self, silence_timeout_s: float) -> None:
        """Kill it when its event loop stands still, and say where."""
        if self._listener is None:
            return
        await self._listener.silence(silence_timeout_s)
        stack = await self._listener.stack(self._process.pid)
        self.kill()
        log.error(
            "process_silent",
            process=self._name,
            pid=self._process.pid,
            silent_s=silence_timeout_s,
            stack=stack or "it does not say where it stands: it is stopped, or cannot run",
            hint="it was killed, and another one is started",
        )
