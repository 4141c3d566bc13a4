"""Writes docs/settings.md from the settings' own declarations: `python docs/list_settings.py`."""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from ledger.knobs import KNOBS, Knob  # noqa: E402 - found through the path above

PAGE = """\
# Settings

Written by `docs/list_settings.py` from `ledger/settings.py`. Each setting is a flag of the commands
that it matters to (`--lease-ms 5000`; where the flag has another name, it stands below the
setting's), a variable (`LEDGERQ_LEASE_MS=5000`), and a key of `ledgerq.toml` (`lease_ms = 5000`).
Flags come before variables, and these before the file. Several values are separated by commas, or
a list in the file. `ledgerq settings` prints what is in force, and where each value came from;
[Running it](running.md#settings) has the rest.

| setting | default | | takes |
|---|---|---|---|
{rows}
"""


def listed() -> str:
    """The whole page."""
    return PAGE.format(rows="\n".join(map(row, KNOBS.values())))


def row(knob: Knob) -> str:
    """One setting."""
    usual = "--" + knob.name.replace("_", "-")
    names = ", ".join(f"`{flag}`" for flag in knob.flags if knob.flags != (usual,))
    name = f"`{knob.name}`" + (f"<br>{names}" if names else "")
    default = f"`{knob.default_text}`" if knob.default_text else ""
    cells = name, default, plain(knob.description), plain(knob.expected)
    return f"| {' | '.join(cells)} |"


def plain(text: str) -> str:
    """With nothing that Markdown would take for its own."""
    return text.replace("*", r"\*").replace("|", r"\|")


if __name__ == "__main__":
    (ROOT / "docs" / "settings.md").write_text(listed())
