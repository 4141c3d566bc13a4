"""How a process of ours starts another one of ours, and how it tells what became of it."""

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import ledger

_EXEC_TIED = str(Path(ledger.__file__).parent / "embedded" / "exec_tied.py")


def module_argv(module: str, *arguments: str) -> tuple[str, ...]:
    """The command line of one of our modules. Without `-P` a folder in the working directory that
    is called like one of our packages would be taken for it."""
    return (sys.executable, "-P", "-m", module, *arguments)


def tied_argv(argv: Sequence[str], told_by: signal.Signals) -> tuple[str, ...]:
    """The command line that runs `argv`, whose first item is a path, and ends it with this process:
    on Linux the kernel sends it `told_by` then, whatever it is doing, and perhaps several times."""
    tie = (str(os.getpid()), str(int(told_by)), "")
    return (sys.executable, "-I", "-S", _EXEC_TIED, *tie, argv[0], *argv)


def with_our_packages(env: Mapping[str, str]) -> dict[str, str]:
    """The child finds the packages that this process runs, installed or not."""
    root = str(Path(ledger.__file__).parent.parent)
    if Path(root).name in ("site-packages", "dist-packages"):
        return dict(env)
    return {**env, "PYTHONPATH": os.pathsep.join(filter(None, (root, env.get("PYTHONPATH"))))}


def describe_exit(code: int) -> str:
    """`exit code 3`, or the name of the signal that ended a process."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
