"""Becomes another program that cannot outlive the process that started it (I/O).

Run as a script, never imported:
`python -I -S exec_tied.py PARENT_PID SIGNAL LOCK_FILE PROGRAM ARGV...`.
`process.py` starts the Valkey server through it, and `consumers/` the roles of a service and what
runs handlers for them (`own_modules.tied_argv`), because what has to happen between fork and exec
is not safe to run in a process with threads (`preexec_fn`).

1. On Linux, ask the kernel for SIGNAL, a number, when the parent dies (prctl(2), PR_SET_PDEATHSIG;
   the setting survives execve). A parent of several threads dies thread by thread, and the kernel
   may signal for each: PROGRAM must not take the second one for another word. Elsewhere there is no
   such thing: the next start ends a server that was left behind.
2. Lock LOCK_FILE and write the own pid into it. The descriptor is passed on to PROGRAM, which knows
   nothing of it, so the lock is held exactly as long as that process, or a child that it forked to
   rewrite its append-only file, lives: two servers never write one data directory. An empty name
   stands for no lock.
3. Become PROGRAM, with ARGV as its whole argument list, its own name first.

Exit status 125: the parent was gone already, or another server holds the lock. It says which on
stderr.
"""

import fcntl
import os
import sys

_NOT_STARTED = 125
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def _be_told_of_death(number: int) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"prctl(PR_SET_PDEATHSIG): {os.strerror(error)}")


def _lock(path: str) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(_refuse(f"another server still holds {path}"))
    os.ftruncate(descriptor, 0)
    os.write(descriptor, b"%d\n" % os.getpid())
    os.set_inheritable(descriptor, True)


def _refuse(reason: str) -> int:
    sys.stderr.write(f"ledgerq: not started: {reason}\n")
    return _NOT_STARTED


def main(parent_pid: str, number: str, lock_file: str, program: str, *argv: str) -> int:
    """Does not return, unless the program must not be started."""
    if sys.platform == "linux":
        _be_told_of_death(int(number))
    # A parent that died before the prctl sends no signal any more.
    if os.getppid() != int(parent_pid):
        return _refuse("the process that asked for it is gone")
    if lock_file:
        _lock(lock_file)
    os.execv(program, argv)  # noqa: S606 - the caller has chosen the program, there is no shell


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
