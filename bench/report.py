"""What a run found, as a table for people and as JSON for programs."""

import os
import platform
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console
from rich.table import Table

from bench.measure import Goal, Measured, Row, Skipped, percentile
from ledger import __version__

SYNC_BYTES: Final = 512
SYNCS: Final = 100


class Machine(msgspec.Struct, frozen=True):
    """What the figures hold for. `fdatasync_ms` is that of the disk below the working directory."""

    cores: int
    memory_gib: float
    system: str
    python: str
    server: str
    fdatasync_ms: float

    def text(self) -> str:
        return (
            f"{self.cores} cores, {self.memory_gib:.0f} GiB, {self.system}, Python {self.python}, "
            f"Valkey {self.server}; fdatasync of {SYNC_BYTES} bytes {self.fdatasync_ms:.2f} ms"
        )


class Report(msgspec.Struct, frozen=True):
    """One run."""

    machine: Machine
    benches: Mapping[str, Sequence[Measured]]
    took_s: float
    version: str = __version__


def machine(server_version: str) -> Machine:
    """This machine, named by what it has."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 0
    python = platform.python_version()
    return Machine(cores, memory / 2**30, platform.system(), python, server_version, _sync_ms())


def _sync_ms() -> float:
    took: list[float] = []
    with tempfile.NamedTemporaryFile(dir=Path.cwd(), prefix=".bench-") as file:
        for _ in range(SYNCS):
            file.write(b"x" * SYNC_BYTES)
            file.flush()
            began = time.perf_counter()
            os.fsync(file.fileno())
            took.append((time.perf_counter() - began) * 1000)
    return percentile(took, 50)


def write_json(file: Path, report: Report) -> None:
    file.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")


def markdown(report: Report) -> str:
    """The tables of `bench/README.md`."""
    lines = [f"Measured on {report.machine.text()}.", ""]
    for name, rows in report.benches.items():
        lines += [f"| {name} | figure | floor | ratio | goal |", "|---|---|---|---|---|"]
        for row in rows:
            cells = (
                _cells(row, "") if isinstance(row, Row) else (f"skipped: {row.reason}", "", "", "")
            )
            lines.append(f"| {row.name} | {' | '.join(cell.strip() for cell in cells)} |")
        lines.append("")
    return "\n".join(lines)


def print_report(console: Console, report: Report) -> None:
    """One table for each bench, then the machine."""
    for name, rows in report.benches.items():
        console.print(_table(name, [row for row in rows if isinstance(row, Row)]))
        for row in rows:
            if isinstance(row, Skipped):
                console.print(f"{row.name}: skipped, {row.reason}")
    console.print(f"ledgerq {report.version} on {report.machine.text()}", soft_wrap=True)
    console.print(
        "Each figure is the median of its rounds, the ratio that of the rounds' own ratios; "
        f"in brackets the lowest and the highest. {report.took_s:.0f} s in all.",
        soft_wrap=True,
    )


def _table(name: str, rows: Sequence[Row]) -> Table:
    floors = list(dict.fromkeys(row.floor_name for row in rows if row.floor_name))
    notes = [f"floor {mark}: {floor}" for mark, floor in zip("abcdef", floors, strict=False)]
    table = Table(title=name, caption="\n".join(notes), caption_justify="left")
    table.add_column("")
    for heading in ("figure", "floor", "ratio", "goal"):
        table.add_column(heading, justify="right")
    for row in rows:
        mark = "abcdef"[floors.index(row.floor_name)] if row.floor_name else ""
        table.add_row(row.name, *_cells(row, mark))
    return table


def _cells(row: Row, mark: str) -> tuple[str, str, str, str]:
    figure = f"{_number(row.figure)} {row.unit}{_spread(row.low, row.high)}"
    if row.floor is None or row.ratio is None:
        return figure, "", "", _verdict(row.goal, met=row.met)
    floor = f"{_number(row.floor)}{_spread(row.floor_low, row.floor_high)} {mark}"
    ratio = f"{row.ratio:.2f}"
    if row.rounds > 1:
        ratio += f" ({row.ratio_low:.2f}-{row.ratio_high:.2f})"
    return figure, floor, ratio, _verdict(row.goal, met=row.met)


def _verdict(goal: Goal | None, *, met: bool | None) -> str:
    if goal is None:
        return ""
    found = "too short to tell" if met is None else "met" if met else "MISSED"
    return f"{goal.text()}: {found}"


def _spread(low: float | None, high: float | None) -> str:
    if low is None or high is None or low == high:
        return ""
    return f" ({_number(low)}-{_number(high)})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}" if value < 10 else f"{value:.1f}"
