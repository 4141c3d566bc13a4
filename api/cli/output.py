"""What commands print: tables on a terminal, plain lines elsewhere, JSON when asked for it.

Plain lines are never wrapped or cut to a width, so that `grep` and `cut` can rely on them.
"""

import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from rich.table import Table

Row = Sequence[str]

STYLES = {
    "completed": "green",
    "failed": "red",
    "canceled": "yellow",
    "processing": "cyan",
    "retrying": "yellow",
    "ok": "green",
    "warn": "yellow",
    "fail": "bold red",
}
"""Words that stand out on a terminal."""


def print_json(value: Any) -> None:
    """Indented JSON of bytes that are JSON already (their numbers untouched), or of any value."""
    encoded = value if isinstance(value, bytes) else msgspec.json.encode(value)
    sys.stdout.write(msgspec.json.format(encoded, indent=2).decode() + "\n")


def print_table(headings: Row, rows: Iterable[Row], *, plain_headings: bool = False) -> None:
    """Columns under headings; the last column takes the room that is left."""
    if not on_terminal():
        _print_plain([list(headings), *rows] if plain_headings else list(rows))
        return
    from rich.box import SIMPLE_HEAD

    table = _table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for heading in headings[:-1]:
        table.add_column(heading, no_wrap=True)
    table.add_column(headings[-1], overflow="fold", ratio=1)
    _print_rows(table, rows)


def print_fields(rows: Iterable[Row]) -> None:
    """Names and values, one pair a line."""
    if not on_terminal():
        _print_plain(list(rows))
        return
    table = _table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold", ratio=1)
    _print_rows(table, rows)


def on_terminal() -> bool:
    """Whether a person reads standard output."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def printable(text: str) -> str:
    """The text without what could steer a terminal: it may come from anywhere."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def shortened(text: str, characters_max: int) -> str:
    """One line of at most so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= characters_max else f"{line[: characters_max - 1]}…"


def _table(**options: Any) -> "Table":
    from rich.table import Table

    return Table(**options, expand=False)


def _print_rows(table: "Table", rows: Iterable[Row]) -> None:
    from rich.console import Console
    from rich.text import Text

    for row in rows:
        # As Text: what tasks hold must not be taken for rich's markup.
        table.add_row(*(Text(printable(cell), style=STYLES.get(cell, "")) for cell in row))
    Console(highlight=False).print(table)


def _print_plain(rows: Sequence[Row]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (printable(cell).ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
