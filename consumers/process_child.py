"""A process that runs handlers for a worker, one at a time: `python -m consumers.process_child`.

Frames come in on standard input and go out on standard output; what a handler prints goes to
standard error. The process ends when its input ends, so it never outlives its worker, and takes
along what its handlers started.
"""

import asyncio
import contextlib
import inspect
import os
import queue
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any, BinaryIO, Final

from consumers.context import Context
from consumers.frames import Answer, Progress, Raised, Returned, Run, decode_run, pack, read_frame
from consumers.handlers import Handler, load_handlers
from consumers.outcome import decode_metadata, decode_payload, encode_result, failure

STRAY_DESCRIPTORS_END: Final = 65_536
"""Above the numbers of a worker's descriptors, and few enough to be closed one by one."""


def main() -> None:
    """Serve frames until there are no more."""
    _end_as_a_group()
    frames_in, frames_out = _take_over_standard_streams()
    incoming: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read_until_end, args=(frames_in, incoming), daemon=True).start()
    handlers = load_handlers(sys.argv[1] or None)

    def send(answer: Answer) -> None:
        frames_out.write(pack(answer))
        frames_out.flush()

    while True:
        run = decode_run(incoming.get())

        def report(percent: int, message: str) -> None:
            send(Progress(percent, message))

        send(_answer(handlers[run.task_type], run, report))


def _answer(handler: Handler, run: Run, report: Callable[[int, str], None]) -> Answer:
    try:
        returned = handler.function(_context(run, report), decode_payload(run.payload))
        if inspect.isawaitable(returned):
            returned = asyncio.run(_finish(returned))
        return Returned(encode_result(returned, run.result_bytes_max))
    except BaseException as error:  # sys.exit too: it is the task that fails, not this process
        failed = failure(handler, error)
        return Raised(failed.kind, failed.message, failed.retry_after_ms)


async def _finish(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def _context(run: Run, report: Callable[[int, str], None]) -> Context:
    return Context(
        task_id=run.task_id,
        task_type=run.task_type,
        attempt=run.attempt,
        kb_id=run.kb_id,
        metadata=decode_metadata(run.metadata),
        deadline_s=run.deadline_s,
        report=report,
        traceparent=run.traceparent,
    )


def _take_over_standard_streams() -> tuple[BinaryIO, BinaryIO]:
    """Keep the pipes for frames, so that a handler's prints and reads cannot break them."""
    # A uvloop worker lets copies of the pipes' ends slip into its children.
    os.closerange(3, STRAY_DESCRIPTORS_END)
    frames_in, frames_out = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)

    def let_go() -> None:
        # A process forked by a handler must neither hold the pipes open nor speak on them.
        nothing = os.open(os.devnull, os.O_RDWR)
        for frames in (frames_in, frames_out):
            os.dup2(nothing, frames.fileno(), inheritable=False)
        os.close(nothing)

    os.register_at_fork(after_in_child=let_go)
    return frames_in, frames_out


def _end_as_a_group() -> None:
    """When the worker dies, the kernel sends SIGTERM to this process alone, often before the reader
    sees the end of the input. Dying of it would leave behind what a handler started."""
    masks = threading.local()

    def end(*_: object) -> None:
        _kill_group()

    # To a process forked by a handler SIGTERM means what it means to any, as exec would see to. One
    # that comes at once waits for that: Python forgets those that come in between.
    def hold() -> None:
        masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def go_on() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.before)

    def let_go() -> None:
        if signal.getsignal(signal.SIGTERM) is end:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        go_on()

    signal.signal(signal.SIGTERM, end)
    os.register_at_fork(before=hold, after_in_parent=go_on, after_in_child=let_go)


def _kill_group() -> None:
    """End this process and those that it started, which are of the same group."""
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _read_until_end(frames_in: BinaryIO, incoming: queue.SimpleQueue[bytes]) -> None:
    with contextlib.suppress(OSError):
        while (frame := read_frame(frames_in)) is not None:
            incoming.put(frame)
    # The worker is gone, or wants no more: whatever the handler is doing is for nobody.
    _kill_group()


if __name__ == "__main__":
    main()
