"""A supervisor that watches its children's event loops: those that stand still are killed, and
those that leave are replaced before they end."""

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from consumers.child_process import CHILD_LIVENESS
from consumers.liveness import STACK_LINES_MAX, most_telling
from consumers.pool import CHILD_NAME, LEAVING_MAX, UNUSABLE, Pool, Program
from consumers.signals import TOLD_TO_END
from tests.consumers.children import PATIENCE_S, Reports, at_once, named, running
from tests.consumers.role_process import ROOT

PRELUDE = """
import asyncio, os, signal, sys, time
from consumers import liveness
liveness.BEAT_S = 0.05
name, report, line = sys.argv[1], int(sys.argv[2]), liveness.Liveness(int(sys.argv[3]))
def say(word):
    os.write(report, f"{word} {os.getpid()}\\n".encode())
async def main():
    telling = asyncio.create_task(line.tell())
    await asyncio.sleep(0)
    await live()
"""

MOVES = """
async def live():
    say("moves")
    await asyncio.Event().wait()
asyncio.run(main())
"""

STANDS_STILL = """
async def live():
    say("moves")
    hold_everything_up()
def hold_everything_up():
    time.sleep(600)
asyncio.run(main())
"""

STANDS_STILL_AMONG_MANY = """
import threading
async def live():
    for _ in range(40):
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    say("moves")
    hold_everything_up()
def hold_everything_up():
    time.sleep(600)
asyncio.run(main())
"""

LEAVES = """
async def live():
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, told.set)
    say("moves")
    line.leave("it has done enough")
    await told.wait()
    say("ended")
asyncio.run(main())
"""


LEAVES_AND_STAYS = """
async def live():
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR2, say, "told")
    loop.add_signal_handler(signal.SIGTERM, os._exit, 0)
    say("moves")
    line.leave("it has done enough")
    await asyncio.Event().wait()
asyncio.run(main())
"""


def watched(
    reports: Reports,
    code: str,
    silence_timeout_s: float = 0.5,
    *,
    stop_timeout_s: float = 10.0,
    backoff: Callable[[int], float] = at_once,
) -> Pool:
    argv = (sys.executable, "-c", PRELUDE + code, CHILD_NAME, str(reports.write_end))
    return Pool(
        [
            Program(
                "child",
                (*argv, CHILD_LIVENESS),
                {"PYTHONPATH": str(ROOT)},
                inherited=(reports.write_end,),
                silence_timeout_s=silence_timeout_s,
                stop_timeout_s=stop_timeout_s,
            )
        ],
        backoff=backoff,
    )


async def pid_of(reports: Reports, word: str = "moves") -> int:
    """The next child that says so."""
    said, pid = str(await reports.next()).split()
    assert said == word
    return int(pid)


async def test_a_child_whose_loop_stands_still_is_replaced_and_the_log_says_where(
    reports: Reports, logs: list[Any]
):
    async with running(watched(reports, STANDS_STILL)):
        first = await pid_of(reports)
        assert await pid_of(reports) != first

    silent = named(logs, "process_silent")[0]
    assert (silent["process"], silent["pid"], silent["silent_s"]) == ("child", first, 0.5)
    assert "in hold_everything_up" in silent["stack"]
    assert named(logs, "process_died")[0]["exit"] == "SIGKILL"


async def test_the_log_says_where_the_loop_stands_however_many_threads_there_are(
    reports: Reports, logs: list[Any]
):
    async with running(watched(reports, STANDS_STILL_AMONG_MANY)):
        first = await pid_of(reports)
        assert await pid_of(reports) != first

    stack = named(logs, "process_silent")[0]["stack"].splitlines()
    assert stack[0].startswith("Current thread ")
    assert "in hold_everything_up" in stack[1]
    assert len(stack) == STACK_LINES_MAX


def test_of_many_threads_the_current_and_the_main_one_are_told_first():
    idle = ["Thread 0x1 (most recent call first):", *['  File "a.py", line 1 in wait'] * 5]
    current = ["Current thread 0x2 (most recent call first):", '  File "b.py", line 2 in compute']
    main = ["Thread 0x3 (most recent call first):", '  File "c.py", line 3 in main']

    told = most_telling([*idle * 20, *current, *idle, *main])

    assert told[:6] == [*current, *main, *idle[:2]]
    assert len(told) == STACK_LINES_MAX
    assert most_telling([*idle, *current]) == [*current, *idle]
    assert most_telling([]) == []


async def test_a_child_that_is_stopped_is_replaced(reports: Reports, logs: list[Any]):
    async with running(watched(reports, MOVES)):
        first = await pid_of(reports)
        os.kill(first, signal.SIGSTOP)
        second = await pid_of(reports)

    [silent] = named(logs, "process_silent")
    assert first != second
    assert (silent["pid"], silent["stack"][:15]) == (first, "it does not say")


async def test_a_child_that_moves_is_left_alone_though_its_supervisor_was_stopped(
    reports: Reports, logs: list[Any]
):
    """What was not heard while nobody listened is no silence."""
    async with running(watched(reports, MOVES)):
        first = await pid_of(reports)
        os.kill(first, signal.SIGSTOP)
        # Both stand still, as when a machine sleeps: the supervisor for three times the time-out.
        stand_still(1.5)
        os.kill(first, signal.SIGCONT)
        os.kill(first, signal.SIGTERM)  # so that there is something to wait for
        await pid_of(reports)

    assert named(logs, "process_silent") == []


def stand_still(seconds: float) -> None:
    """Stand still, with everything on this thread's loop."""
    signal.sigtimedwait([], seconds)


async def test_a_child_that_leaves_is_replaced_before_it_ends(reports: Reports, logs: list[Any]):
    pool = watched(reports, LEAVES)

    async with running(pool):
        first, second = await pid_of(reports), await pid_of(reports)
        assert pool.pids()["child"][:2] == [first, second]
        os.kill(first, TOLD_TO_END)
        # Somewhere between the others that come, and leave as well.
        while str(await reports.next()) != f"ended {first}":
            pass

    assert named(logs, "process_leaving")[0]["pid"] == first
    assert named(logs, "process_leaving")[0]["why"] == "it has done enough"
    assert named(logs, "process_died") == []


LEAVES_AND_ENDS = """
def leave(*_):
    line.leave("it has done enough")
    os._exit(0)
signal.signal(signal.SIGTERM, leave)
say("moves")
while True:
    signal.pause()
"""


async def test_a_child_that_left_and_ended_before_its_supervisor_looked_is_no_death(
    reports: Reports, logs: list[Any]
):
    async with running(watched(reports, LEAVES_AND_ENDS)):
        first = await pid_of(reports)
        os.kill(first, signal.SIGTERM)
        reap_in_background(first)  # while the supervisor's loop stands still
        await pid_of(reports)

    assert [left["pid"] for left in named(logs, "process_leaving")] == [first]
    assert named(logs, "process_died") == []


def reap_in_background(pid: int) -> None:
    """Return once the child has ended and the thread that waits for it has told the loop."""
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    for thread in threading.enumerate():
        if thread.name.startswith("asyncio-waitpid"):
            thread.join(PATIENCE_S)


async def test_of_many_that_leave_the_oldest_is_told_to_end(reports: Reports):
    async with running(watched(reports, LEAVES)):
        said = [str(await reports.next()) for _ in range(4)]

    pids = [line.split()[1] for line in said if line.startswith("moves")]
    assert len(pids) >= 3
    ended = next((line for line in said if line.startswith("ended")), None)
    assert ended in (None, f"ended {pids[0]}")
    if ended is None:
        assert await reports.next() == f"ended {pids[0]}"


async def test_of_too_many_that_leave_one_ends_before_another_starts(
    reports: Reports, logs: list[Any]
):
    pool = watched(reports, LEAVES_AND_STAYS, stop_timeout_s=PATIENCE_S)

    async with running(pool):
        left = [await pid_of(reports) for _ in range(LEAVING_MAX + 1)]
        assert await pid_of(reports, "told") == left[0]
        assert not await anything_said(reports, within_s=1.0)
        assert pool.pids()["child"] == left
        os.kill(left[0], signal.SIGTERM)
        assert await pid_of(reports) not in left
        pool.stop()
        pool.kill()

    [waits] = [
        record for record in named(logs, "replacement_waits") if left[0] in record["leaving"]
    ]
    assert (waits["log_level"], waits["told_to_end"]) == ("warning", left[0])


async def anything_said(reports: Reports, within_s: float) -> bool:
    try:
        async with asyncio.timeout(within_s):
            await reports.next()
    except TimeoutError:
        return False
    return True


async def test_of_too_many_that_leave_the_oldest_is_killed_when_it_does_not_end(
    reports: Reports, logs: list[Any]
):
    async with running(watched(reports, LEAVES_AND_STAYS, stop_timeout_s=0.3)):
        left = [await pid_of(reports) for _ in range(LEAVING_MAX + 1)]
        assert await pid_of(reports, "told") == left[0]
        assert await pid_of(reports) not in left

    assert named(logs, "process_killed")[0]["pid"] == left[0]


async def test_children_that_leave_early_are_replaced_after_growing_pauses(
    reports: Reports, logs: list[Any]
):
    asked: list[int] = []

    def backoff(number: int) -> float:
        asked.append(number)
        return 0.0

    async with running(watched(reports, LEAVES, backoff=backoff)):
        for _ in range(3):
            await pid_of(reports)

    early = named(logs, "process_left_early")
    assert asked[:2] == [1, 2]
    assert (early[0]["log_level"], early[0]["process"]) == ("warning", "child")


async def test_a_replacement_that_cannot_run_leaves_the_others_alone(
    reports: Reports, logs: list[Any], tmp_path: Path
):
    begun = tmp_path / "begun"
    code = (
        f"""
if os.path.exists({str(begun)!r}):
    say("refuses")
    sys.exit({UNUSABLE})
open({str(begun)!r}, "w").close()
"""
        + LEAVES
    )
    pool = watched(reports, code)

    async with running(pool):
        first = await pid_of(reports)
        for _ in range(2):
            await pid_of(reports, "refuses")
        assert pool.pids()["child"][0] == first

    assert named(logs, "process_died")[0]["exit"] == f"exit code {UNUSABLE}"


async def test_a_child_that_moved_before_it_could_not_run_is_tried_again(reports: Reports):
    code = f"""
async def live():
    say("moves")
    sys.exit({UNUSABLE})
asyncio.run(main())
"""

    async with running(watched(reports, code)):
        assert await pid_of(reports) != await pid_of(reports)
