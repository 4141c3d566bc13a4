"""An event's data as a few words."""

from typing import Any, Final

import msgspec

from api.cli.output import on_terminal, shortened

DETAIL_CHARACTERS_MAX: Final = 200
DETAIL_CHARACTERS_ON_TERMINAL: Final = 78
"""Longer details are cut; `--json` shows all of them."""

_SILENT: Final = frozenset({"body_sha256", "lease_ms", "worker_id"})
"""Of use to machines alone, or said elsewhere on the line."""


def detail(data: dict[str, Any]) -> str:
    """What the event holds, on one line."""
    words = (f"{name}={_word(value)}" for name, value in data.items() if name not in _SILENT)
    characters_max = DETAIL_CHARACTERS_ON_TERMINAL if on_terminal() else DETAIL_CHARACTERS_MAX
    return shortened(" ".join(words), characters_max)


def _word(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
