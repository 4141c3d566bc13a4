"""What the roles log during a run: shown in a trace; an error that nobody expects is a fault."""

import logging
from collections.abc import Callable, MutableMapping
from types import TracebackType
from typing import Any, Final, Self

import structlog

EXPECTED_ERRORS: Final = frozenset({"handler_ignores_its_end", "outcome_not_written"})
"""Others mean that something is broken in the product."""


class Logged:
    """Within, structlog's records come here."""

    def __init__(self, trace: Callable[[str], None] | None, broken: list[str]) -> None:
        self._trace = trace
        self._broken = broken

    def __enter__(self) -> Self:
        self._before = structlog.get_config()
        level = logging.ERROR if self._trace is None else logging.DEBUG
        structlog.configure(
            processors=[self._take],
            wrapper_class=structlog.make_filtering_bound_logger(level),
            cache_logger_on_first_use=False,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        structlog.configure(**self._before)

    def _take(self, _: Any, level: str, record: MutableMapping[str, Any]) -> Any:
        name = record.pop("event")
        told = " ".join(f"{key}={value}" for key, value in record.items())
        if self._trace is not None:
            self._trace(f"   {level} {name} {told}")
        if level == "error" and name not in EXPECTED_ERRORS:
            self._broken.append(f"{name}: {told}")
        raise structlog.DropEvent
