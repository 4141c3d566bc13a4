"""Which processes run on this machine: from /proc where there is one, else from `ps`."""

import contextlib
import os
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

_PROC = Path("/proc/self/stat")


class Process(NamedTuple):
    """`command` is its command line, the arguments separated by single spaces."""

    pid: int
    parent: int
    command: str


def descendants(pid: int) -> list[Process]:
    """The processes that `pid` started, and those that they started; not those that have ended."""
    children: dict[int, list[Process]] = {}
    for process in _running():
        children.setdefault(process.parent, []).append(process)
    found = list(children.get(pid, ()))
    for process in found:  # grows while it is walked
        found += children.get(process.pid, ())
    return found


def still_running(processes: Iterable[Process]) -> list[Process]:
    """Those that have not ended. One that has lost its parent is the same process still."""
    now = {(process.pid, process.command) for process in _running()}
    return [process for process in processes if (process.pid, process.command) in now]


def _running() -> Iterator[Process]:
    return _from_proc() if _PROC.exists() else _from_ps()


def _from_proc() -> Iterator[Process]:
    for name in filter(str.isdigit, os.listdir("/proc")):
        # It may end while it is looked at.
        with contextlib.suppress(OSError):
            folder = Path("/proc", name)
            # The second field, the program's name in brackets, may hold anything.
            state, parent = (
                (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
            )
            command = (folder / "cmdline").read_bytes().decode(errors="replace")
            if state not in "ZX":
                yield Process(int(name), int(parent), command.replace("\0", " ").strip())


def _from_ps() -> Iterator[Process]:
    command = ("ps", "-axww", "-o", "pid=,ppid=,stat=,command=")
    listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)  # noqa: S603 - a fixed command
    for line in listed.stdout.splitlines():
        pid, parent, state, *rest = line.split(None, 3)
        if not state.startswith("Z"):
            yield Process(int(pid), int(parent), " ".join(rest))
