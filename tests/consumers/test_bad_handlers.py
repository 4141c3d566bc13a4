"""Handlers that do what none should: their task fails with a clear message, the worker lives."""

import asyncio
import signal
from collections.abc import Callable
from typing import Any

import pytest

from consumers import Context
from consumers.handlers import Handler
from consumers.outcome import HandlerFailed, decode_payload
from ledger.events import ErrorKind
from ledger.redis_store import RedisStore
from ledger.store import Append, Outcome
from ledger.task import Status, Task
from tests.consumers.test_executors import MODULE, in_process
from tests.consumers.working import handles, submit, until, working


async def well(context: Context, _: Any) -> str:
    return "well"


async def failed_beside_a_living_worker(
    store: RedisStore, handler: Handler, payload: object = None, **options: Any
) -> Task:
    """The task that a bad handler failed; afterwards the same worker completes another one."""
    async with working(store, handler, handles("well", well), module=MODULE, **options):
        bad = await submit(store, handler.task_type, payload, max_retries=0)
        task = await until(store, bad, Status.FAILED)
        await until(store, await submit(store, "well"), Status.COMPLETED)
    return task


class Unpicklable(Exception):
    def __init__(self) -> None:
        super().__init__("with a lock")
        self.inside = asyncio.Lock()

    def __reduce__(self) -> Any:
        raise TypeError("cannot be pickled")


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise SystemExit("even that")


async def raise_async(context: Context, payload: dict[str, str]) -> None:
    raise_plain(context, payload)


def raise_plain(context: Context, payload: dict[str, str]) -> None:
    errors: dict[str, Callable[[], BaseException]] = {
        "unpicklable": Unpicklable,
        "unspeakable": Unspeakable,
        "exit": lambda: SystemExit(3),
        "interrupt": KeyboardInterrupt,
    }
    if payload["how"] == "recursion":
        return raise_plain(context, payload)
    raise errors[payload["how"]]()


@pytest.mark.parametrize("function", [raise_async, raise_plain])
@pytest.mark.parametrize(
    ("how", "message", "kind"),
    [
        ("unpicklable", "Unpicklable: with a lock", ErrorKind.RETRYABLE),
        ("unspeakable", "Unspeakable: (its text cannot be shown)", ErrorKind.RETRYABLE),
        ("exit", "the handler called sys.exit(3)", ErrorKind.PERMANENT),
        ("interrupt", "KeyboardInterrupt", ErrorKind.PERMANENT),
    ],
)
async def test_whatever_a_handler_raises_fails_its_task_alone(
    store: RedisStore, function: Callable[..., Any], how: str, message: str, kind: ErrorKind
) -> None:
    task = await failed_beside_a_living_worker(store, handles("raise", function), {"how": how})

    assert (task.state.error_message, task.state.error_kind) == (message, kind)


@pytest.mark.parametrize("function", [raise_async, raise_plain])
async def test_endless_recursion_fails_its_task_alone(
    store: RedisStore, function: Callable[..., Any]
) -> None:
    task = await failed_beside_a_living_worker(
        store, handles("raise", function), {"how": "recursion"}
    )

    assert task.state.error_message.startswith("RecursionError: maximum recursion depth")
    assert task.state.error_kind is ErrorKind.PERMANENT


@pytest.mark.parametrize(
    ("how", "message"),
    [("exit", "the handler called sys.exit(3)"), ("interrupt", "KeyboardInterrupt")],
)
async def test_a_process_that_is_told_to_exit_fails_its_task_alone(
    store: RedisStore, how: str, message: str
) -> None:
    task = await failed_beside_a_living_worker(store, in_process("process_raise"), {"how": how})

    assert (task.state.error_message, task.state.error_kind) == (message, ErrorKind.PERMANENT)


@pytest.mark.parametrize(
    ("task_type", "payload", "end"),
    [
        ("process_die", {"code": 7}, "exit code 7"),
        ("process_die", {"code": 0}, "exit code 0"),
        ("process_kill", {"signal": int(signal.SIGSEGV)}, "SIGSEGV"),
        ("process_die_with_fork", {"code": 7}, "exit code 7"),
    ],
)
async def test_a_process_that_ends_is_reported_by_how(
    store: RedisStore, task_type: str, payload: dict[str, int], end: str
) -> None:
    task = await failed_beside_a_living_worker(store, in_process(task_type), payload)

    assert task.state.error_message == f"the handler's process ended with {end}"
    assert task.state.error_kind is ErrorKind.RETRYABLE


async def test_a_process_forked_by_a_handler_can_be_terminated(store: RedisStore) -> None:
    async with working(store, in_process("process_terminate"), module=MODULE):
        task_id = await submit(store, "process_terminate")
        task = await until(store, task_id, Status.COMPLETED)

    assert int(task.state.result) == -signal.SIGTERM


@pytest.mark.usefixtures("logged")
async def test_what_a_process_prints_and_reads_does_not_meet_the_frames(
    store: RedisStore, capfd: pytest.CaptureFixture[str]
) -> None:
    async with working(store, in_process("process_talk"), module=MODULE):
        task = await until(store, await submit(store, "process_talk"), Status.COMPLETED)

    assert bytes(task.state.result) == b'""'
    printed = capfd.readouterr()
    assert printed.out == ""
    for line in ("printed by a handler", "written by a handler", "printed by a child"):
        assert line in printed.err


def nested(levels: int) -> Any:
    inner: Any = 1
    for _ in range(levels):
        inner = [inner]
    return inner


class Circular(dict[str, Any]):
    def __init__(self) -> None:
        super().__init__()
        self["self"] = self


NOT_JSON: dict[str, Callable[[], Any]] = {
    "object": object,
    "nan": lambda: {"score": float("nan")},
    "infinity": lambda: [None, float("-inf")],
    "half a character": lambda: "\ud800",
    "key": lambda: {(1, 2): 3},
    "circular": Circular,
    "deep": lambda: nested(257),
    "very deep": lambda: nested(100_000),
}


@pytest.mark.parametrize("what", list(NOT_JSON))
async def test_a_result_that_is_not_json_fails_the_task(store: RedisStore, what: str) -> None:
    def give(context: Context, _: Any) -> Any:
        return NOT_JSON[what]()

    task = await failed_beside_a_living_worker(store, handles("give", give))

    assert task.state.error_message.startswith("the handler returned something that is not JSON (")
    assert task.state.error_kind is ErrorKind.PERMANENT


@pytest.mark.parametrize(
    ("result", "json"),
    [
        ({"a"}, b'["a"]'),
        ((1, None), b"[1,null]"),
        ({1: None}, b'{"1":null}'),
        (2**70, b"1180591620717411303424"),
        (nested(256), b"[" * 256 + b"1" + b"]" * 256),
        (["[" * 300, {"{": "{" * 300}], b'["' + b"[" * 300 + b'",{"{":"' + b"{" * 300 + b'"}]'),
    ],
)
async def test_a_result_with_an_obvious_form_in_json_is_taken(
    store: RedisStore, result: Any, json: bytes
) -> None:
    async def give(context: Context, _: Any) -> Any:
        return result

    async with working(store, handles("give", give)):
        task = await until(store, await submit(store, "give"), Status.COMPLETED)

    assert bytes(task.state.result) == json


async def give_large(context: Context, _: Any) -> str:
    return "x" * (10 << 20)


@pytest.mark.parametrize("handler", [handles("large", give_large), in_process("process_return")])
async def test_a_result_of_10_mib_fails_the_task(store: RedisStore, handler: Handler) -> None:
    task = await failed_beside_a_living_worker(store, handler, {"what": "large"})

    assert task.state.error_message == (
        "the handler returned 10,485,762 bytes, more than the 1,048,576 that a result may have;"
        " store it elsewhere and return where"
    )
    assert task.state.error_kind is ErrorKind.PERMANENT


async def test_an_object_that_a_process_returns_fails_the_task(store: RedisStore) -> None:
    task = await failed_beside_a_living_worker(
        store, in_process("process_return"), {"what": "object"}
    )

    assert task.state.error_message.startswith("the handler returned something that is not JSON")


def test_a_payload_that_is_nested_too_deeply_to_be_decoded_is_a_permanent_failure() -> None:
    with pytest.raises(HandlerFailed, match=r"payload cannot be decoded: .*recursion") as raised:
        decode_payload(b'{"a":' * 10_000 + b"1" + b"}" * 10_000)

    assert raised.value.kind is ErrorKind.PERMANENT


async def test_a_handler_that_cancels_itself_failed(store: RedisStore) -> None:
    async def give_up(context: Context, _: Any) -> None:
        raise asyncio.CancelledError

    task = await failed_beside_a_living_worker(store, handles("give_up", give_up))

    assert task.state.error_message == "the handler cancelled itself"
    assert task.state.error_kind is ErrorKind.RETRYABLE


async def test_a_cancellation_that_a_handler_leaves_behind_does_not_reach_the_outcome(
    store: RedisStore,
) -> None:
    async def cancel_later(context: Context, _: Any) -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()  # raised where the task waits next, which this handler does not
        return "done"

    async with working(store, handles("cancel_later", cancel_later)):
        task = await until(store, await submit(store, "cancel_later"), Status.COMPLETED)

    assert bytes(task.state.result) == b'"done"'
    assert task.state.attempt == 1


async def test_a_cancellation_that_comes_too_late_does_not_reach_the_outcome(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something that the handler began has kept its task, and cancels it as the end is written."""
    task: asyncio.Task[Any] | None = None
    appended = store.append

    async def keep_task(context: Context, _: Any) -> str:
        nonlocal task
        task = asyncio.current_task()
        return "done"

    async def cancel_first(step: Append) -> Outcome:
        nonlocal task
        if task is not None:
            task, late = None, task
            late.cancel()
        return await appended(step)

    monkeypatch.setattr(store, "append", cancel_first)
    async with working(store, handles("keep_task", keep_task)) as worker:
        done = await until(store, await submit(store, "keep_task"), Status.COMPLETED)

    assert (bytes(done.state.result), done.state.attempt) == (b'"done"', 1)
    assert worker.tasks_taken == 1


async def test_a_time_out_within_a_handler_is_its_own(store: RedisStore) -> None:
    async def wait_in_vain(context: Context, _: Any) -> str:
        try:
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
        except TimeoutError:
            return "in vain"
        return "never"

    async with working(store, handles("wait_in_vain", wait_in_vain)):
        task = await until(store, await submit(store, "wait_in_vain"), Status.COMPLETED)

    assert bytes(task.state.result) == b'"in vain"'
