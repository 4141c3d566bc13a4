"""Where handlers run: on the event loop, in a thread, or in a process that can be killed.

Each executor takes a handler, its context and the payload, and gives the result as JSON or raises
HandlerFailed. Cancelling the call stops the handler: a coroutine by cancellation, a process by
SIGKILL; a thread cannot be stopped, and is abandoned unless it ends by itself.
"""

import asyncio
import contextlib
import contextvars
import os
import signal
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final

import msgspec
import structlog

from consumers.context import Context
from consumers.frames import (
    FRAME_BYTES_MAX,
    LENGTH_BYTES,
    Answer,
    Progress,
    Raised,
    Returned,
    Run,
    decode_answer,
    pack,
)
from consumers.handlers import ExecutorKind, Handler
from consumers.outcome import HandlerFailed, decode_payload, encode_result, failure
from consumers.own_modules import describe_exit, module_argv, tied_argv, with_our_packages
from ledger.events import ErrorKind

log = structlog.get_logger("worker")

CHILD_STOP_TIMEOUT_S: Final = 5.0

THREAD_END_GRACE_S: Final = 1.0
"""A thread whose task was given up, and that still runs so much later, counts as abandoned: one
that watches `context.canceled` ends before."""


class Call(msgspec.Struct, frozen=True):
    """One call of a handler."""

    handler: Handler
    context: Context
    payload: msgspec.Raw
    metadata: msgspec.Raw
    result_bytes_max: int


async def run_on_loop(call: Call) -> bytes:
    """The result of an async handler."""
    try:
        result = await call.handler.function(call.context, decode_payload(call.payload))
        return encode_result(result, call.result_bytes_max)
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        # SystemExit and KeyboardInterrupt too: they would end the worker with all its other tasks.
        raise failure(call.handler, error) from error


class ThreadExecutor:
    """Runs plain handlers, each in a thread of its own.

    The threads are daemons: one that was abandoned must not keep the worker from ending.
    """

    def __init__(self, on_abandoned: Callable[[int], None]) -> None:
        """`on_abandoned` is told how many there are, each time that they are more or fewer."""
        self._on_abandoned = on_abandoned
        self._abandoned = 0
        """Threads that still run long after their task was given up."""

    async def run(self, call: Call) -> bytes:
        """The result of a plain handler. Cancelling gives up its thread, at once."""
        loop = asyncio.get_running_loop()
        ended = self._start(call, loop)
        try:
            result = await asyncio.shield(ended)
        except asyncio.CancelledError:
            loop.call_later(THREAD_END_GRACE_S, self._look_after, call.context.task_id, ended)
            raise
        if isinstance(result, HandlerFailed):
            raise result
        return result

    def _look_after(self, task_id: str, ended: "asyncio.Future[bytes | HandlerFailed]") -> None:
        """Count a thread that has not ended, until it does."""
        if ended.done():
            return
        self._abandoned += 1
        ended.add_done_callback(self._count_one_less)
        log.warning(
            "thread_abandoned",
            task_id=task_id,
            abandoned=self._abandoned,
            hint="a thread cannot be stopped; use executor='process' for what must be",
        )
        self._on_abandoned(self._abandoned)

    def _count_one_less(self, _: object) -> None:
        self._abandoned -= 1
        self._on_abandoned(self._abandoned)

    def _start(
        self, call: Call, loop: asyncio.AbstractEventLoop
    ) -> "asyncio.Future[bytes | HandlerFailed]":
        """How the thread ends: a failure is a value here, which nobody has to retrieve."""
        ended: asyncio.Future[bytes | HandlerFailed] = loop.create_future()

        def work() -> None:
            try:
                returned = call.handler.function(call.context, decode_payload(call.payload))
                result = encode_result(returned, call.result_bytes_max)
            except BaseException as error:
                result = failure(call.handler, error)
            # The worker may have ended without this thread, and its loop with it.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(ended.set_result, result)

        inherited = contextvars.copy_context()
        name = f"handler-{call.context.task_id}"
        threading.Thread(target=lambda: inherited.run(work), name=name, daemon=True).start()
        return ended


class Child:
    """A process that runs one handler at a time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def spawn(cls, module: str | None) -> "Child":
        process = await asyncio.create_subprocess_exec(
            *tied_argv(module_argv("consumers.process_child", module or ""), signal.SIGTERM),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=with_our_packages(os.environ),
            # A group of its own, so that what the handler started is killed with it.
            start_new_session=True,
        )
        return cls(process)

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def call(self, run: Run, context: Context) -> bytes:
        """The handler's result. Raises HandlerFailed, also when the process ends in between."""
        assert self._process.stdin is not None  # noqa: S101 - made with a pipe
        try:
            self._process.stdin.write(pack(run))
            await self._process.stdin.drain()
            while True:
                match await self._answer():
                    case Progress(percent, message):
                        context.progress(percent, message)
                    case Returned(result):
                        return result
                    case Raised(kind, message, retry_after_ms):
                        raise HandlerFailed(kind, message, retry_after_ms)
        except (asyncio.IncompleteReadError, ConnectionError, msgspec.MsgspecError) as error:
            self._signal(signal.SIGKILL)
            code = await self._process.wait()
            raise HandlerFailed(
                ErrorKind.RETRYABLE, f"the handler's process ended with {describe_exit(code)}"
            ) from error

    async def _answer(self) -> Answer:
        assert self._process.stdout is not None  # noqa: S101 - made with a pipe
        length = int.from_bytes(await self._process.stdout.readexactly(LENGTH_BYTES), "big")
        if length > FRAME_BYTES_MAX:
            raise msgspec.DecodeError(f"a frame of {length} bytes")
        return decode_answer(await self._process.stdout.readexactly(length))

    async def kill(self) -> None:
        """End it at once, whatever it is doing."""
        self._signal(signal.SIGKILL)
        await self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


class ProcessExecutor:
    """Runs handlers in child processes, one task each at a time; idle ones are used again."""

    def __init__(self, module: str | None) -> None:
        self._module = module
        self._idle: list[Child] = []
        self._ending: set[asyncio.Task[None]] = set()

    async def run(self, call: Call) -> bytes:
        """The result of a handler in a child. Cancelling kills the child."""
        context = call.context
        child = await self._free_child()
        try:
            result = await child.call(
                Run(
                    call.handler.task_type,
                    context.task_id,
                    context.attempt,
                    context.kb_id,
                    bytes(call.metadata),
                    context.deadline_s,
                    bytes(call.payload),
                    call.result_bytes_max,
                    context.traceparent,
                ),
                context,
            )
        except HandlerFailed:
            self._put_back(child)
            raise
        except BaseException:
            self._end(child)
            raise
        self._put_back(child)
        return result

    async def _free_child(self) -> Child:
        while self._idle:
            child = self._idle.pop()
            if child.alive:
                return child
        return await Child.spawn(self._module)

    async def close(self) -> None:
        """End all children."""
        for child in self._idle:
            self._end(child)
        self._idle.clear()
        if self._ending:
            await asyncio.wait(self._ending, timeout=CHILD_STOP_TIMEOUT_S)

    def _put_back(self, child: Child) -> None:
        if child.alive:
            self._idle.append(child)

    def _end(self, child: Child) -> None:
        task = asyncio.get_running_loop().create_task(child.kill())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


class Executors:
    """All of them, as one worker has them."""

    def __init__(self, module: str | None, on_abandoned: Callable[[int], None]) -> None:
        """`module`: where child processes find the handlers. `on_abandoned`: see ThreadExecutor."""
        self._processes = ProcessExecutor(module)
        self._threads = ThreadExecutor(on_abandoned)

    def run(self, call: Call) -> Coroutine[Any, Any, bytes]:
        """The call, where its handler asks to run."""
        match call.handler.executor:
            case ExecutorKind.ASYNC:
                return run_on_loop(call)
            case ExecutorKind.THREAD:
                return self._threads.run(call)
            case ExecutorKind.PROCESS:
                return self._processes.run(call)

    async def close(self) -> None:
        """End the child processes."""
        await self._processes.close()
