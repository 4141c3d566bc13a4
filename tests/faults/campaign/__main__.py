"""`python -m tests.faults.campaign [--seeds N] [--first N] [--seed N] [--markdown FILE]`"""

import argparse
import asyncio
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path

import msgspec

from ledger.events import AttemptFailed
from tests.faults.campaign.checkers import judge
from tests.faults.campaign.plan import Plan, plan
from tests.faults.campaign.run import Outcome, Skipped, run

SHOWN_MAX = 5


class Row(msgspec.Struct, frozen=True):
    """What is told of one seed."""

    seed: int
    durability: str
    faults: str
    tasks: str
    result: str
    failed: bool = False


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.campaign",
        description="Run whole services under faults that seeds draw. `make faults` does so.",
    )
    parser.add_argument("--seeds", type=int, default=20, help="how many (20)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (0)")
    parser.add_argument("--seed", type=int, help="only this one, whose folder is kept")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table as text too")
    asked = parser.parse_args()
    seeds = (
        [asked.seed] if asked.seed is not None else range(asked.first, asked.first + asked.seeds)
    )
    rows: list[Row] = []
    for seed in seeds:
        rows.append(row := run_seed(plan(seed), keep=asked.seed is not None))
        sys.stdout.write(f"seed {seed:3} {row.durability:8} {row.faults}\n")
        sys.stdout.write(f"         {row.tasks}: {row.result}\n")
        sys.stdout.flush()
    failed = [row for row in rows if row.failed]
    sys.stdout.write(f"{len(rows)} seeds, {len(failed)} failed\n")
    if asked.markdown is not None:
        asked.markdown.write_text(_table(rows))
    return 1 if failed else 0


def run_seed(drawn: Plan, *, keep: bool = False) -> Row:
    """Run and judge one; a failing one says how to run it again, and where its data is."""
    folder = Path(tempfile.mkdtemp(prefix=f"lq-seed-{drawn.seed}-"))
    planned = Counter(str(fault.kind) for fault in drawn.faults)
    faults = ", ".join(f"{n}x {kind}" if n > 1 else kind for kind, n in planned.items())
    try:
        outcome = asyncio.run(run(drawn, folder))
    except Skipped as skipped:
        shutil.rmtree(folder, ignore_errors=True)
        return Row(drawn.seed, drawn.durability, faults, "no tasks", f"skipped: {skipped}")
    except Exception:
        traceback.print_exc()
        return _failure(drawn, faults, "", folder, {"run": ["it broke off, see above"]})
    wrong = judge(outcome.evidence)
    tasks = _tasks(outcome)
    if wrong:
        return _failure(drawn, faults, tasks, folder, wrong)
    if keep:
        sys.stdout.write(f"its folder: {folder}\n")
    else:
        shutil.rmtree(folder)
    return Row(drawn.seed, drawn.durability, faults, tasks, "in order")


def _failure(
    drawn: Plan, faults: str, tasks: str, folder: Path, wrong: dict[str, list[str]]
) -> Row:
    for checker, found in wrong.items():
        for text in found[:SHOWN_MAX]:
            sys.stdout.write(f"  {checker}: {text}\n")
        if len(found) > SHOWN_MAX:
            sys.stdout.write(f"  {checker}: and {len(found) - SHOWN_MAX} more\n")
    sys.stdout.write(f"  again: make faults SEED={drawn.seed}\n")
    sys.stdout.write(f"  its folder: {folder}\n")
    return Row(drawn.seed, drawn.durability, faults, tasks, f"FAILED {', '.join(wrong)}", True)


def _tasks(outcome: Outcome) -> str:
    evidence = outcome.evidence
    lost = sum(event.type == AttemptFailed.__name__ for event in evidence.events)
    return (
        f"{len(evidence.acknowledged)} tasks, {len(evidence.events)} events, {lost} attempts"
        f" failed, {outcome.refused} calls refused or lost, {outcome.seconds:.0f} s"
    )


def _table(rows: list[Row]) -> str:
    lines = ["| seed | durability | faults | what was done | result |", "|---|---|---|---|---|"]
    lines += [f"| {r.seed} | {r.durability} | {r.faults} | {r.tasks} | {r.result} |" for r in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
