"""Handlers: the functions that do the work, found by task type."""

import importlib
import inspect
import os
import socket
import sys
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from consumers.classification import Classification, ExceptionClass, classify
from consumers.context import Context
from ledger.retry_policy import RetryPolicy

Function = TypeVar("Function", bound=Callable[..., Any])


class ExecutorKind(StrEnum):
    """Where a handler runs."""

    ASYNC = "async"
    """On the event loop, as a coroutine."""
    THREAD = "thread"
    """In a thread. It cannot be stopped from outside: a timeout or a cancel abandons it."""
    PROCESS = "process"
    """In a process of its own, which is killed on a timeout or a cancel."""


class Handler(msgspec.Struct, frozen=True):
    """A function that handles one task type, and how it is to be treated."""

    task_type: str
    function: Callable[..., Any]
    executor: ExecutorKind
    retry: RetryPolicy | None = None
    """None: the worker's own."""
    errors: Classification = Classification()
    """What the exceptions mean that the function raises."""


class HandlersError(Exception):
    """The handlers' module cannot be used; says why and what to do."""


_registered: dict[str, Handler] = {}


def handler(
    task_type: str,
    *,
    executor: str | None = None,
    retry: RetryPolicy | None = None,
    permanent: ExceptionClass | tuple[ExceptionClass, ...] = (),
    retryable: ExceptionClass | tuple[ExceptionClass, ...] = (),
) -> Callable[[Function], Function]:
    """Register a function as the handler of `task_type`.

    The function takes (context, payload): a `Context`, and the payload as decoded JSON. What it
    returns, as JSON, is the task's result. An `async def` runs on the event loop, a plain `def` in
    a thread; `executor="process"` runs either in a process that can be killed.

    `retry` says how long to wait between attempts (else the settings do). `permanent` names
    exceptions that are not worth another one, `retryable` those that are: of the classes of an
    exception, the most specific one that is named decides. What no class is named for is retryable.

    Raises HandlersError when the type has a handler already, the executor does not fit the
    function, or an option is something else.
    """
    make = handler_maker(
        task_type, executor=executor, retry=retry, permanent=permanent, retryable=retryable
    )

    def register(function: Function) -> Function:
        known = _registered.get(task_type)
        if known is not None and _place_of(known.function) != _place_of(function):
            raise HandlersError(
                f"task type {task_type!r} has a handler already, {_place_of(known.function)}; "
                f"{_place_of(function)} cannot be another"
            )
        _registered[task_type] = make(function)
        return function

    return register


def handler_maker(
    task_type: str,
    *,
    executor: str | None = None,
    retry: RetryPolicy | None = None,
    permanent: ExceptionClass | tuple[ExceptionClass, ...] = (),
    retryable: ExceptionClass | tuple[ExceptionClass, ...] = (),
) -> Callable[[Callable[..., Any]], Handler]:
    """What makes a Handler of a function, and registers it nowhere. Given and raises as `handler`,
    but for the type that has one already."""
    if not isinstance(task_type, str) or not task_type:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise HandlersError(f'expected @handler("task_type"), got @handler({task_type!r})')
    if not isinstance(retry, RetryPolicy | None):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise HandlersError(f"{task_type}: retry= takes a RetryPolicy, got {retry!r}")
    try:
        errors = classify(permanent, retryable)
    except ValueError as error:
        raise HandlersError(f"{task_type}: {error}") from None

    def make(function: Callable[..., Any]) -> Handler:
        return Handler(task_type, function, _executor_of(function, executor), retry, errors)

    return make


def load_handlers(module: str | None) -> Mapping[str, Handler]:
    """Every handler that importing `module` (dotted name, found from the working directory too)
    registers, and the built-in `health_check`.

    Raises HandlersError when the module cannot be found or registers nothing; what its own code
    raises comes through.
    """
    if module is None:
        return dict(_registered)
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    before = len(_registered)
    try:
        imported = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if not f"{module}.".startswith(f"{error.name}."):
            raise  # it is there, and something that it imports is not
        expected = f"a module importable from {here}"
        if module.endswith(".py"):
            expected += ", named without .py"
        raise HandlersError(f"--handlers {module}: {error}; expected {expected}") from error
    own = [h for h in _registered.values() if h.function.__module__ == imported.__name__]
    if len(_registered) == before and not own:
        raise HandlersError(f"--handlers {module}: it registers no function with @handler")
    return dict(_registered)


def _executor_of(function: Callable[..., Any], wanted: str | None) -> ExecutorKind:
    is_async = inspect.iscoroutinefunction(function)
    if wanted is None:
        return ExecutorKind.ASYNC if is_async else ExecutorKind.THREAD
    try:
        kind = ExecutorKind(wanted)
    except ValueError:
        raise HandlersError(
            f"{_place_of(function)}: executor must be async, thread or process, got {wanted!r}"
        ) from None
    if (kind is ExecutorKind.ASYNC and not is_async) or (kind is ExecutorKind.THREAD and is_async):
        needed = "an async def" if kind is ExecutorKind.ASYNC else "a plain def"
        raise HandlersError(f"{_place_of(function)}: executor {wanted!r} needs {needed}")
    return kind


def _place_of(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"


@handler("health_check")
async def health_check(context: Context, payload: dict[str, Any]) -> dict[str, Any]:
    """The built-in handler: proves that a task travels all the way, and says who took it."""
    return {
        "status": "healthy",
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "attempt": context.attempt,
        "echo": payload,
    }
