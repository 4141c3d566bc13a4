"""When a worker process has served long enough: what it holds in memory, what it has done."""

import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

_STATM: Final = Path("/proc/self/statm")
_KIB_PER_PAGE: Final = resource.getpagesize() // 1024
_MAXRSS_PER_KIB: Final = 1024 if sys.platform == "darwin" else 1


def resident_kib() -> int:
    """Resident memory of this process; where the system does not tell, the most there ever was."""
    try:
        return int(_STATM.read_bytes().split()[1]) * _KIB_PER_PAGE
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // _MAXRSS_PER_KIB


class Recycling:
    """The bounds of one process; 0 stands for none."""

    def __init__(
        self,
        *,
        memory_max_mib: int = 0,
        tasks_max: int = 0,
        resident: Callable[[], int] = resident_kib,
    ) -> None:
        self._memory_max_kib = memory_max_mib * 1024
        self._tasks_max = tasks_max
        self._resident = resident

    def after_task(self, tasks_ended: int) -> str | None:
        """Why the process should leave, now that a task has ended; None while it should not."""
        if self._tasks_max and tasks_ended >= self._tasks_max:
            return f"{tasks_ended} tasks are done (max_tasks)"
        return None

    def now_and_then(self, tasks_ended: int) -> str | None:
        """The same, by what takes longer to find out. A process that has done nothing yet stays:
        one in its place would be no smaller."""
        if self._memory_max_kib and tasks_ended:
            resident = self._resident()
            if resident > self._memory_max_kib:
                return (
                    f"{resident // 1024} MiB are resident, more than {self._memory_max_kib // 1024}"
                    " (max_memory_mib)"
                )
        return None
