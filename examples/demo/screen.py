"""What the story looks like: at most 80 columns, and plain lines where no person watches."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from textwrap import wrap
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from api.client import Event

COLUMNS_MAX: Final = 80
PLAIN_STEPS: Final = 4
"""Lines of progress where it cannot be live."""

_INDENT: Final = "   "
_STYLES: Final = {"TaskCompleted": "green", "AttemptFailed": "red", "RetryScheduled": "yellow"}


class Screen:
    """The story on standard output."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._console.width = min(self._console.width, COLUMNS_MAX)
        self._parts = 0

    def title(self, text: str) -> None:
        """The first line."""
        self._console.print(Text(text, "bold"))

    def part(self, text: str) -> None:
        """The heading of the next part."""
        self._parts += 1
        self._console.print()
        self._console.print(Text(f"{self._parts}. {text}", "bold cyan"))

    def say(self, text: str, style: str = "") -> None:
        """A paragraph."""
        width = self._console.width - len(_INDENT)
        for line in wrap(text, width, break_on_hyphens=False):
            self._console.print(Text(_INDENT + line, style))

    def fail(self, reason: str, log: Sequence[str]) -> None:
        """Why the story ends here, and the last that the service logged."""
        self._console.print()
        for line in log:
            self._console.print(Text(line, "dim"), soft_wrap=True)
        self._console.print(Text(f"The demo failed: {reason}", "bold red"))

    @contextmanager
    def progress(self, total: int) -> "Generator[Advance]":
        """Documents as they are done."""
        with Progress(
            TextColumn("  "),
            BarColumn(24, complete_style="cyan", finished_style="green"),
            MofNCompleteColumn(),
            TextColumn("documents  {task.fields[chunks]:,} chunks "),
            TimeElapsedColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        ) as live:
            yield Advance(self, live, total)

    def history(self, events: Sequence[Event]) -> None:
        """A task's events, oldest first."""
        table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
        table.add_column("version", justify="right")
        table.add_column("time (UTC)", no_wrap=True)
        table.add_column("event", no_wrap=True)
        table.add_column("data", overflow="fold")
        for event in events:
            time = event.at.strftime("%H:%M:%S.%f")[:-3]
            name = Text(event.type, _STYLES.get(event.type, ""))
            table.add_row(str(event.version), time, name, Text(_told(event)))
        self._console.print(Padding(table, (0, 0, 0, len(_INDENT)), expand=False))

    def figures(self, rows: Sequence[tuple[str, str]]) -> None:
        """What was measured."""
        table = Table.grid(padding=(0, 2))
        table.add_column(justify="right", style="bold")
        table.add_column()
        for figure, what in rows:
            table.add_row(Text(figure), Text(what))
        self._console.print(Padding(table, (0, 0, 0, len(_INDENT)), expand=False))


class Advance:
    """How far the documents are: a live bar, or a line now and then."""

    def __init__(self, screen: Screen, live: Progress, total: int) -> None:
        self._screen = screen
        self._live = live
        self._bar = live.add_task("", total=total, chunks=0)
        self._total = total
        self.done = 0
        self.chunks = 0

    def step(self, chunks: int) -> None:
        """One more document, with so many chunks."""
        self.done += 1
        self.chunks += chunks
        if not self._live.disable:
            self._live.update(self._bar, completed=self.done, chunks=self.chunks)
        elif self.done * PLAIN_STEPS // self._total > (self.done - 1) * PLAIN_STEPS // self._total:
            self._screen.say(f"{self.done} of {self._total} documents, {self.chunks:,} chunks")


def _told(event: Event) -> str:
    data = event.data or {}
    match event.type:
        case "TaskSubmitted":
            return f"{data['task_type']} for {data['kb_id']}"
        case "TaskStarted":
            return f"attempt {data['attempt']} on {data['worker_id']}"
        case "TaskProgressed":
            return f"{data['progress']} %"
        case "AttemptFailed":
            return f"{data['error_kind']}: {data['error_message']}"
        case "RetryScheduled":
            return f"retry {data['retry_count']}"
        case "TaskCompleted":
            return f"{data['result']['chunks']} chunks"
        case _:
            return ""
