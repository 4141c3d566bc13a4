"""What commands print: tables on a terminal, plain lines elsewhere, JSON when asked for it.

Plain lines are never wrapped or cut to a width, so that `grep` and `cut` can rely on them.
"""

import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from rich.table import Table

Row = Sequence[str]

GAP: Final = 2
"""Between columns."""

FOLDED_MIN: Final = 16
"""The last column is not folded to less."""

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


def print_table(headings: Row, rows: Iterable[Row], *, least: Sequence[str] = ()) -> None:
    """Columns under headings, which plain lines go without.

    The last column takes the room that is left. On a terminal that is too narrow, columns of
    `least` are left out, in this order unless they are
    small enough; where that does not help, each row is a block that has all
    of them. So nothing is cut that somebody may want to copy.
    """
    if not on_terminal():
        _print_plain(list(rows))
        return
    from rich.box import SIMPLE_HEAD

    rows = list(rows)
    shown = _that_fit(headings, rows, least, _terminal_width())
    if shown is None:
        _print_blocks(headings, rows)
        return
    table = _table(box=SIMPLE_HEAD, header_style="bold", show_edge=False, collapse_padding=True)
    for place in shown[:-1]:
        table.add_column(headings[place], no_wrap=True)
    table.add_column(headings[shown[-1]], overflow="fold", ratio=1)
    _print_rows(table, [[row[place] for place in shown] for row in rows])


def print_fields(rows: Iterable[Row]) -> None:
    """Names and values, one pair a line."""
    if not on_terminal():
        _print_plain(list(rows))
        return
    table = _table(box=None, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold", ratio=1)
    _print_rows(table, rows)


def on_terminal() -> bool:
    """Whether a person reads standard output."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def counted(number: int, noun: str, nouns: str = "") -> str:
    """`1 task`, `1,000 tasks`. `nouns`: where several are not just called that with an s."""
    return f"{number:,} {noun if number == 1 else nouns or f'{noun}s'}"


def printable(text: str) -> str:
    """The text without what could steer a terminal: it may come from anywhere."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def shortened(text: str, characters_max: int) -> str:
    """One line of at most so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= characters_max else f"{line[: characters_max - 1]}…"


def _table(**options: Any) -> "Table":
    from rich.table import Table

    return Table(**options, pad_edge=False, expand=False)


def _terminal_width() -> int:
    from rich.console import Console

    return Console().width


def _that_fit(
    headings: Row, rows: Sequence[Row], least: Sequence[str], width: int
) -> Sequence[int] | None:
    """Places of the columns to show; None when those that have to be shown do not fit."""
    from rich.cells import cell_len

    needed = [max(map(cell_len, column)) for column in zip(headings, *rows, strict=True)]

    def fit(shown: Iterable[int]) -> bool:
        *firm, last = (needed[place] for place in sorted(shown))
        return sum(firm) + GAP * len(firm) + min(last, FOLDED_MIN) <= width

    may_go = [headings.index(heading) for heading in least]
    shown = set(range(len(headings))) - set(may_go)
    if not fit(shown):
        return None
    for place in reversed(may_go):
        if fit({*shown, place}):
            shown.add(place)
    return sorted(shown)


def _print_blocks(headings: Row, rows: Sequence[Row]) -> None:
    from rich.console import Console

    for number, row in enumerate(rows):
        if number:
            Console().print()
        print_fields([pair for pair in zip(headings, row, strict=True) if pair[1]])


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
