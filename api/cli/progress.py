"""A progress bar on standard error, for a person; for anybody else, nothing."""

import contextlib
import sys
from collections.abc import Callable, Generator


@contextlib.contextmanager
def counting(what: str, total: int | None = None) -> Generator[Callable[[int], None]]:
    """Gives a function that takes how many more are done. The bar shows the rate too."""
    if not sys.stderr.isatty():
        yield _nothing
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        """How many a second, over the last moments."""

        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:,.0f}/s", style="progress.data.speed")

    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeElapsedColumn(),
    )
    # Drawn by a thread of its own, which must not take much from the work that it shows.
    with Progress(
        *columns, console=Console(stderr=True), transient=True, refresh_per_second=4
    ) as progress:
        bar = progress.add_task(what, total=total)

        def advance(done: int) -> None:
            progress.advance(bar, done)

        yield advance


def _nothing(_: int) -> None:
    pass
