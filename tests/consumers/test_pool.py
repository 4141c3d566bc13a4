"""A supervisor and its children, which are small programs that report on a pipe."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from consumers.own_modules import module_argv
from consumers.pool import CHILD_NAME, CHILD_NUMBER, UNUSABLE, CannotRun, Pool, Program
from consumers.signals import TOLD_TO_END
from tests.consumers.children import PATIENCE_S, Reports, at_once, named, running

PRELUDE = """
import os, signal, sys
name, report = sys.argv[1], int(sys.argv[2])
def say(word):
    os.write(report, f"{name} {word}\\n".encode())
"""

RUN_UNTIL_TOLD = """
def end(*_):
    say("ended")
    sys.exit(0)
signal.signal(signal.SIGUSR2, end)
say(f"runs {os.getpid()}")
while True:
    signal.pause()
"""

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")


def program(
    reports: Reports,
    code: str = RUN_UNTIL_TOLD,
    *,
    name: str = "child",
    count: int = 1,
    stop_timeout_s: float = PATIENCE_S,
    env: dict[str, str] | None = None,
) -> Program:
    argv = (sys.executable, "-I", "-S", "-c", PRELUDE + code, CHILD_NAME, str(reports.write_end))
    inherited = (reports.write_end,)
    return Program(name, argv, {} if env is None else env, count, stop_timeout_s, inherited)


async def test_runs_each_program_as_often_as_it_says(reports: Reports):
    pool = Pool([program(reports, name="a", count=2), program(reports, name="b")])

    async with running(pool):
        said = await reports.take(3)
        pids = pool.pids()

    assert said == {
        f"a-1 runs {pids['a'][0]}",
        f"a-2 runs {pids['a'][1]}",
        f"b runs {pids['b'][0]}",
    }


async def test_a_child_is_told_its_number(reports: Reports):
    numbered = program(reports, "say(sys.argv[3]); signal.pause()", count=2)
    numbered = replace(numbered, argv=(*numbered.argv, CHILD_NUMBER))

    async with running(Pool([numbered])):
        assert await reports.take(2) == {"child-1 1", "child-2 2"}


async def test_tells_children_to_end_and_waits_for_them(reports: Reports):
    pool = Pool([program(reports, count=2)])

    async with running(pool):
        await reports.take(2)

    assert await reports.take(2) == {"child-1 ended", "child-2 ended"}
    assert pool.pids() == {"child": []}


async def test_stops_programs_in_order(reports: Reports):
    # If both were told at once, the second would be the first to end.
    slow_end = RUN_UNTIL_TOLD.replace('say("ended")', 'signal.sigtimedwait([], 0.3), say("ended")')
    pool = Pool([program(reports, slow_end, name="first"), program(reports, name="second")])

    async with running(pool):
        await reports.take(2)

    assert [await reports.next(), await reports.next()] == ["first ended", "second ended"]


async def test_a_killed_child_is_replaced_and_its_death_reported_once(
    reports: Reports, logs: list[Any]
):
    pool = Pool([program(reports)], backoff=at_once)

    async with running(pool):
        await reports.take(1)
        [victim] = pool.pids()["child"]
        os.kill(victim, signal.SIGKILL)
        [successor] = await reports.take(1)

        assert successor == f"child runs {pool.pids()['child'][0]}" != f"child runs {victim}"

    [death] = named(logs, "process_died")
    assert (death["process"], death["exit"]) == ("child", "SIGKILL")


async def test_an_exit_code_is_reported(reports: Reports, logs: list[Any]):
    pool = Pool([program(reports, "say('x'); sys.exit(3)")], backoff=at_once)

    async with running(pool):
        await reports.take(2)

    assert named(logs, "process_died")[0]["exit"] == "exit code 3"


async def test_pauses_grow_with_deaths_in_a_row(reports: Reports):
    deaths: list[int] = []

    def backoff(number: int) -> float:
        deaths.append(number)
        return 0.0

    async with running(Pool([program(reports, "say('x')")], backoff=backoff)):
        await reports.take(4)

    assert deaths[:3] == [1, 2, 3]


async def test_a_child_that_stayed_up_is_forgiven_its_earlier_deaths(reports: Reports):
    deaths: list[int] = []

    def backoff(number: int) -> float:
        deaths.append(number)
        return 0.0

    pool = Pool([program(reports, "say('x')")], backoff=backoff, stable_after_s=0.0)
    async with running(pool):
        await reports.take(4)

    assert deaths[:3] == [1, 1, 1]


async def test_a_stop_does_not_wait_for_a_pause(reports: Reports, logs: list[Any]):
    paused = asyncio.Event()

    def backoff(_: int) -> float:
        paused.set()
        return 3_600.0

    async with running(Pool([program(reports, "say('x')")], backoff=backoff)):
        await asyncio.wait_for(paused.wait(), PATIENCE_S)

    assert len(named(logs, "process_died")) == 1


async def test_a_child_that_does_not_end_is_killed(reports: Reports, logs: list[Any]):
    stubborn = "signal.signal(signal.SIGUSR2, signal.SIG_IGN); say('runs'); os.read(0, 1)"
    stubborn += "\nwhile True: signal.pause()"
    pool = Pool([program(reports, stubborn, stop_timeout_s=0.2)])

    async with running(pool):
        await reports.take(1)
        [pid] = pool.pids()["child"]

    [killed] = named(logs, "process_killed")
    assert killed["pid"] == pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_kill_while_it_stops_ends_those_too_whose_turn_has_not_come(
    reports: Reports, logs: list[Any]
):
    told = "def end(*_): say('told')\nsignal.signal(signal.SIGUSR2, end)\nsay('runs')"
    stubborn = told + "\nwhile True: signal.pause()"
    pool = Pool([program(reports, stubborn, name="first"), program(reports, name="second")])

    async with running(pool):
        await reports.take(2)
        pool.stop()
        assert await reports.next() == "first told"

        pool.kill()

    assert named(logs, "process_died") == []


async def test_a_child_that_cannot_run_at_all_ends_the_pool(reports: Reports):
    good = program(reports, name="good")
    bad = program(reports, f"say('x'); sys.exit({UNUSABLE})", name="bad")
    pool = Pool([good, bad], backoff=at_once)

    with pytest.raises(CannotRun, match="bad cannot run"):
        await asyncio.wait_for(pool.run(), PATIENCE_S)

    assert pool.pids() == {"good": [], "bad": []}


async def test_a_child_that_ran_before_is_tried_again(reports: Reports, tmp_path: Path):
    mark = tmp_path / "ran"
    code = f"""
say("x")
if os.path.exists({str(mark)!r}):
    sys.exit({UNUSABLE})
open({str(mark)!r}, "w").close()
"""

    async with running(Pool([program(reports, code)], backoff=at_once)):
        assert await reports.take(3) == {"child x"}


async def test_a_child_that_stayed_up_before_it_could_not_run_is_tried_again(reports: Reports):
    cannot = program(reports, f"say('x'); sys.exit({UNUSABLE})")

    async with running(Pool([cannot], backoff=at_once, stable_after_s=0.0)):
        assert await reports.take(3) == {"child x"}


async def test_a_new_child_sees_what_the_environment_says_by_then(reports: Reports):
    env = {"WORD": "before"}
    code = "say(os.environ['WORD']); signal.pause()"
    pool = Pool([program(reports, code, env=env)], backoff=at_once)

    async with running(pool):
        before = await reports.next()
        env["WORD"] = "after"
        pool.kill()
        after = await reports.next()

    assert (before, after) == ("child before", "child after")


async def test_a_kill_meets_a_child_too_that_is_just_being_started(
    reports: Reports, monkeypatch: pytest.MonkeyPatch
):
    """It was given what the environment said before, and would never learn better."""
    env = {"WORD": "before"}
    pool = Pool([program(reports, "say(os.environ['WORD']); signal.pause()", env=env)])
    start = asyncio.create_subprocess_exec

    async def start_slowly(*arguments: Any, **options: Any) -> asyncio.subprocess.Process:
        process = await start(*arguments, **options)
        if env["WORD"] == "before":
            env["WORD"] = "after"
            pool.kill()
        return process

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start_slowly)
    async with running(pool):
        # The first one had perhaps time to speak.
        while await reports.next() != "child after":
            pass


async def test_cancelling_the_pool_kills_its_children(reports: Reports):
    pool = Pool([program(reports)])
    task = asyncio.create_task(pool.run())
    await reports.take(1)

    task.cancel()
    await asyncio.wait([task])

    reports.close_ours()
    assert await reports.next() is None


ROLE = f"""
{PRELUDE}
import asyncio
from consumers.signals import StopSignals
async def main():
    told, goes_on = asyncio.Event(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, goes_on.set)
    StopSignals().call(told.set)
    say(f"runs {{os.getpid()}}")
    await told.wait()
    say("told")
    await goes_on.wait()
    say("ended")
asyncio.run(main())
"""


async def test_children_that_somebody_else_told_to_end_as_well_end_in_order(reports: Reports):
    """As when systemd ends all processes of a service at once. A child that takes the second word
    for impatience, whoever spoke first, does not get as far as to say that it ended."""
    argv = (sys.executable, "-c", ROLE, CHILD_NAME, str(reports.write_end))
    pool = Pool([Program("child", argv, os.environ, 2, PATIENCE_S, (reports.write_end,))])

    async with running(pool):
        await reports.take(2)
        first, second = pool.pids()["child"]
        os.kill(first, signal.SIGTERM)
        assert await reports.next() == "child-1 told"
        pool.stop()
        assert await reports.next() == "child-2 told"
        os.kill(second, signal.SIGTERM)
        for pid in (first, second):
            os.kill(pid, signal.SIGUSR1)

        assert await reports.take(2) == {"child-1 ended", "child-2 ended"}


@linux_only
async def test_children_end_in_order_with_a_supervisor_that_is_killed_thread_by_thread(
    reports: Reports,
):
    """The kernel tells them of each thread's end, and the others still live: a child that takes the
    second word for impatience does not get as far as to say that it ended."""
    supervisor = f"""
import asyncio, os, sys, threading
from consumers.pool import *
for _ in range(16):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
argv = (sys.executable, "-c", {ROLE!r}, CHILD_NAME, sys.argv[1])
program = Program("child", argv, dict(os.environ), 4, 10.0, (int(sys.argv[1]),))
asyncio.run(Pool([program]).run())
"""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", supervisor, str(reports.write_end)),
        pass_fds=[reports.write_end],
    )
    reports.close_ours()
    names = [f"child-{number}" for number in range(1, 5)]
    pids = [int(said.split()[-1]) for said in await reports.take(4)]

    process.kill()
    await process.wait()
    assert await reports.take(4) == {f"{name} told" for name in names}
    for pid in pids:
        os.kill(pid, signal.SIGUSR1)

    ended: list[str] = []
    while (line := await reports.next()) is not None:
        ended.append(line)
    assert sorted(ended) == [f"{name} ended" for name in names]


def test_where_the_kernel_does_not_help_a_child_ends_with_its_input():
    code = "from consumers.pool import watch_input; watch_input(0); import signal; signal.pause()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)

    child.communicate(timeout=PATIENCE_S)

    assert child.returncode == -TOLD_TO_END


async def test_a_folder_in_the_working_directory_is_not_taken_for_ours(
    reports: Reports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "consumers").mkdir()
    (tmp_path / "consumers" / "__init__.py").write_text("raise SystemExit('the wrong one')")
    monkeypatch.chdir(tmp_path)
    argv = module_argv("consumers.roles", "no-such-role", CHILD_NAME)

    pool = Pool([Program("child", argv, {"LEDGERQ_NO_SUCH_SETTING": "1"})])

    # It gets as far as to look at its settings.
    with pytest.raises(CannotRun):
        await asyncio.wait_for(pool.run(), PATIENCE_S)
