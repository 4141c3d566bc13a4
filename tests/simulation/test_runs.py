"""The product under faults, seed by seed; and that a seed says all."""

import os
import re
import subprocess
import sys

import pytest

from ledger.transitions import AFTER_THE_END, TRANSITIONS
from tests.servers import tied
from tests.simulation.network import Fault
from tests.simulation.world import simulate

SHORT_RUNS = 10_000
BUDGET_S = 600
"""A bound for the short runs where others use the processors too; alone, they take a fraction."""


def run(*arguments: str, hash_seed: str = "random") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        tied([sys.executable, "-m", "tests.simulation", *arguments]),
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
    )


def test_one_seed_is_one_history():
    first, second = (simulate(11, want_digest=True) for _ in range(2))

    assert first.digest == second.digest
    assert first == second
    assert simulate(12, want_digest=True).digest != first.digest


def test_a_seed_says_the_same_in_every_process():
    digests = [run("--seeds", "1..60", "--digests", hash_seed=h).stdout for h in ("1", "2")]

    assert digests[0] == digests[1]
    assert len(set(re.findall(r"[0-9a-f]{64}", digests[0]))) == 60


def test_a_trace_tells_what_happened_and_changes_nothing():
    lines: list[str] = []

    traced = simulate(11, trace=lines.append, want_digest=True)

    assert traced.digest == simulate(11, want_digest=True).digest
    told = "\n".join(lines)
    assert "TaskSubmitted" in told
    assert "faults cease" in told or not traced.injected


@pytest.mark.timeout(BUDGET_S)
def test_short_runs():
    done = run("--first", "1", "--seeds", str(SHORT_RUNS))

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{SHORT_RUNS:,} runs" in done.stdout
    # Every fault was really injected, and every transition of the table happened, but for those
    # after the end: nobody here asks to be called back, or to be forgotten.
    happened = {kind for _, kind in TRANSITIONS} - AFTER_THE_END
    for line in [*map(str, Fault), *(f", {kind.__name__} " for kind in happened)]:
        count = re.search(rf"{re.escape(line)} *([\d,]+)", done.stdout)
        assert count is not None, line
        assert int(count[1].replace(",", "")) > 0, line
