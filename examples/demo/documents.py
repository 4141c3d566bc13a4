"""The real documents: the source files of Python's standard library, there on every machine."""

import sysconfig
from pathlib import Path
from typing import Final

from .failures import DemoError

LEFT_OUT: Final = frozenset(
    {"test", "tests", "idlelib", "site-packages", "dist-packages", "__pycache__"}
)
"""Folders that are not the library itself: its tests, an application, what was installed later."""

SOUGHT: Final = "heapq.py"
"""What a search for "priority queue" must find."""


LIBRARY: Final = Path(sysconfig.get_path("stdlib"))


def standard_library(at_most: int | None) -> list[Path]:
    """The library's files that have something in them, in order of their paths; of more than
    `at_most`, every n-th.

    `SOUGHT` is always among them. Raises DemoError where Python was installed without sources.
    """
    files = [
        path
        for path in sorted(LIBRARY.rglob("*.py"))
        if LEFT_OUT.isdisjoint(path.relative_to(LIBRARY).parts) and path.stat().st_size
    ]
    if LIBRARY / SOUGHT not in files:
        raise DemoError(f"no source files of the standard library in {LIBRARY}")
    if at_most is None or at_most >= len(files):
        return files
    chosen = {files[index * len(files) // at_most] for index in range(1, at_most)}
    return sorted({LIBRARY / SOUGHT, *chosen})


def title(path: str) -> str:
    """What the story calls a document."""
    return str(Path(path).relative_to(LIBRARY))
