"""An event's data as a few words."""

from typing import Any, Final

import msgspec

from api.cli.output import on_terminal, shortened
from ledger.moments import LAST_MS, moment_text

DETAIL_CHARACTERS_MAX: Final = 200
DETAIL_CHARACTERS_ON_TERMINAL: Final = 78
"""Longer details are cut; `--json` shows all of them."""

_SILENT: Final = frozenset({"body_sha256", "lease_ms"})
"""Of use to machines alone."""

_MOMENTS: Final = frozenset({"retry_at", "schedule_for"})
"""Numbers of milliseconds in the ledger."""


def detail(data: dict[str, Any]) -> str:
    """What the event holds, on one line."""
    # Who makes an attempt is the event's actor, and said elsewhere on the line.
    silent = _SILENT | {"worker_id"} if "attempt" in data else _SILENT
    words = (f"{name}={_word(name, value)}" for name, value in data.items() if name not in silent)
    characters_max = DETAIL_CHARACTERS_ON_TERMINAL if on_terminal() else DETAIL_CHARACTERS_MAX
    return shortened(" ".join(words), characters_max)


def _word(name: str, value: Any) -> str:
    if name in _MOMENTS and isinstance(value, int) and 0 <= value <= LAST_MS:
        return moment_text(value)
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
