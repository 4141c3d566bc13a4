"""Handlers that run in processes of their own: importable there, unlike a test's own functions."""

import asyncio
import fcntl
import multiprocessing
import os
import subprocess
import sys
import time
from typing import Any

from consumers import Context, PermanentError, RetryLater, RetryPolicy, handler

AT_ONCE = RetryPolicy(base_ms=0, cap_ms=0)
LONG_S = 600


@handler("process_add", executor="process")
def add(context: Context, payload: dict[str, Any]) -> dict[str, Any]:
    context.progress(50, "half")
    return {
        "sum": payload["a"] + payload["b"],
        "pid": os.getpid(),
        "attempt": context.attempt,
        "kb_id": context.kb_id,
        "metadata": context.metadata,
        "traceparent": context.traceparent,
    }


@handler("process_async", executor="process")
async def add_async(context: Context, payload: dict[str, Any]) -> int:
    await context.progress(50, "half")
    await asyncio.sleep(0)
    return payload["a"] + payload["b"]


@handler(
    "process_raise",
    executor="process",
    retry=AT_ONCE,
    permanent=(LookupError,),
    retryable=(IndexError,),
)
def raise_it(context: Context, payload: dict[str, str]) -> None:
    known: dict[str, BaseException] = {
        "retryable": ValueError("not this time"),
        "permanent": PermanentError("never"),
        "lookup": KeyError("k"),
        "exit": SystemExit(3),
        "interrupt": KeyboardInterrupt(),
        "odd": ValueError("\udcff"),
        "later": RetryLater(90, "busy"),
        "index": IndexError("i"),
    }
    raise known[payload["how"]]


@handler("process_linger", executor="process")
def linger(context: Context, payload: dict[str, str]) -> None:
    """Stay, together with a process of one's own; both hold a lock as long as they live."""
    lock = os.open(payload["lock"], os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    sleep = f"import time; time.sleep({LONG_S})"
    with subprocess.Popen([sys.executable, "-c", sleep], pass_fds=(lock,)):
        context.progress(1, "both hold the lock")
        time.sleep(LONG_S)


@handler("process_compute", executor="process")
def compute(context: Context, payload: dict[str, str]) -> None:
    """Never let go of the interpreter for long, beside a process of one's own that holds a lock."""
    lock = os.open(payload["lock"], os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    sleep = f"import time; time.sleep({LONG_S})"
    with subprocess.Popen([sys.executable, "-c", sleep], pass_fds=(lock,)):
        context.progress(1, "both hold the lock")
        while True:
            pass


@handler("process_terminate", executor="process")
def terminate(context: Context, payload: None) -> int | None:
    """How a forked process ends that is told to."""
    forked = multiprocessing.get_context("fork").Process(target=time.sleep, args=(LONG_S,))
    forked.start()
    forked.terminate()
    forked.join(LONG_S)
    return forked.exitcode


@handler("process_die", executor="process", retry=AT_ONCE)
def die(context: Context, payload: dict[str, int]) -> None:
    os._exit(payload["code"])


@handler("process_kill", executor="process", retry=AT_ONCE)
def kill(context: Context, payload: dict[str, int]) -> None:
    os.kill(os.getpid(), payload["signal"])


@handler("process_die_with_fork", executor="process", retry=AT_ONCE)
def die_with_fork(context: Context, payload: dict[str, int]) -> None:
    """End while a forked process still holds all that was open here."""
    multiprocessing.get_context("fork").Process(target=time.sleep, args=(LONG_S,)).start()
    os._exit(payload["code"])


@handler("process_talk", executor="process")
def talk(context: Context, payload: dict[str, Any]) -> str:
    """Write where the frames would be, and read where they come from."""
    print("printed by a handler", flush=True)  # noqa: T201 - the test is about it
    os.write(1, b"written by a handler\n")
    subprocess.run([sys.executable, "-c", "print('printed by a child')"], check=True)
    return sys.stdin.read()


@handler("process_return", executor="process")
def return_it(context: Context, payload: dict[str, str]) -> Any:
    return {"object": object(), "large": "x" * (10 << 20)}[payload["what"]]
