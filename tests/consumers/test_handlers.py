"""How handlers are found: registered by decorator, loaded by their module's name."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from consumers import PermanentError, RetryLater, handlers
from consumers.handlers import ExecutorKind, HandlersError, handler, load_handlers
from ledger.events import ErrorKind


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is forgotten after it."""
    registered = handlers._registered  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(handlers, "_registered", dict(registered))


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file `my_handlers.py` in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path / "my_handlers.py"
    sys.modules.pop("my_handlers", None)


async def well(context: Any, payload: Any) -> None:
    """A handler."""


def test_without_a_module_there_is_the_built_in_handler() -> None:
    assert load_handlers(None)["health_check"].executor is ExecutorKind.ASYNC


def test_a_module_is_found_from_the_working_directory(module: Path) -> None:
    module.write_text(
        "from consumers import handler\n"
        "@handler('mine')\n"
        "async def mine(context, payload): ...\n"
        "@handler('mine_too')\n"
        "def mine_too(context, payload): ...\n"
        "@handler('mine_apart', executor='process')\n"
        "def mine_apart(context, payload): ...\n"
    )

    loaded = load_handlers("my_handlers")

    assert loaded["mine"].executor is ExecutorKind.ASYNC
    assert loaded["mine_too"].executor is ExecutorKind.THREAD
    assert loaded["mine_apart"].executor is ExecutorKind.PROCESS
    assert "health_check" in loaded


def test_a_module_may_be_loaded_again(module: Path) -> None:
    module.write_text(
        "from consumers import handler\n@handler('mine')\nasync def mine(context, payload): ...\n"
    )

    assert load_handlers("my_handlers").keys() == load_handlers("my_handlers").keys()


def test_a_module_that_is_missing_is_named(module: Path) -> None:
    with pytest.raises(HandlersError, match=r"--handlers my_handlers: No module named 'my_hand"):
        load_handlers("my_handlers")


def test_a_module_is_named_without_its_ending(module: Path) -> None:
    module.write_text("")

    with pytest.raises(HandlersError, match=r"--handlers my_handlers\.py: .*, named without \.py"):
        load_handlers("my_handlers.py")


def test_a_module_without_handlers_is_refused(module: Path) -> None:
    module.write_text("from consumers import handler\n")

    with pytest.raises(HandlersError, match="registers no function with @handler"):
        load_handlers("my_handlers")


@pytest.mark.parametrize(
    ("code", "raised"),
    [
        ("1 / 0", ZeroDivisionError),
        ("import no_such_package", ModuleNotFoundError),
        ("from consumers import no_such_name", ImportError),
    ],
)
def test_the_error_of_a_module_comes_through_so_that_its_author_sees_where(
    module: Path, code: str, raised: type[Exception]
) -> None:
    module.write_text(f"{code}\n")

    with pytest.raises(raised):
        load_handlers("my_handlers")


def test_a_task_type_has_one_handler() -> None:
    @handler("one_of_a_kind")
    def first(context: Any, payload: Any) -> None: ...

    def second(context: Any, payload: Any) -> None: ...

    with pytest.raises(HandlersError, match=r"'one_of_a_kind' has a handler already, .*first"):
        handler("one_of_a_kind")(second)


async def a_coroutine(context: Any, payload: Any) -> None: ...


def a_function(context: Any, payload: Any) -> None: ...


@pytest.mark.parametrize(
    ("function", "executor", "message"),
    [
        (a_coroutine, "thread", "executor 'thread' needs a plain def"),
        (a_function, "async", "executor 'async' needs an async def"),
        (a_function, "fiber", "executor must be async, thread or process, got 'fiber'"),
    ],
)
def test_an_executor_that_does_not_fit_is_refused(
    function: Any, executor: str, message: str
) -> None:
    with pytest.raises(HandlersError, match=message):
        handler("anything", executor=executor)(function)


def test_what_users_import_brings_neither_redis_nor_the_api() -> None:
    """A user's repository may have packages of these names itself."""
    script = (
        "import sys, consumers\n"
        "print([name for name in ('api', 'redis', 'projections') if name in sys.modules])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30
    )

    assert ran.stdout == "[]\n"


def test_one_permanent_exception_needs_no_tuple() -> None:
    handler("once", permanent=KeyError)(well)

    assert load_handlers(None)["once"].errors.kind_of(KeyError()) is ErrorKind.PERMANENT


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"permanent": "KeyError"}, r"once: permanent= takes an exception class or a tuple"),
        ({"permanent": (1,)}, r"permanent= takes .* got \(1,\)"),
        ({"retryable": [KeyError]}, r"retryable= takes .* got \[<class 'KeyError'>\]"),
        ({"retryable": (int,)}, r"retryable= takes"),
        ({"retry": 3}, r"retry= takes a RetryPolicy, got 3"),
        ({"permanent": OSError, "retryable": (OSError,)}, r"OSError: named by permanent= and by"),
        ({"retryable": PermanentError}, r"retryable= cannot name PermanentError, which is perm"),
        ({"permanent": RetryLater}, r"permanent= cannot name RetryLater, which is retryable"),
    ],
)
def test_options_that_make_no_sense_are_told_at_registration(
    options: dict[str, Any], told: str
) -> None:
    with pytest.raises(HandlersError, match=told):
        handler("once", **options)


@pytest.mark.parametrize("task_type", [well, "", None])
def test_a_decorator_without_a_task_type_is_told_at_registration(task_type: Any) -> None:
    with pytest.raises(HandlersError, match=r'expected @handler\("task_type"\), got @handler\('):
        handler(task_type)
