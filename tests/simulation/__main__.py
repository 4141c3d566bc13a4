"""`python -m tests.simulation`: runs seeds, counts what happened, and shows each one that fails.

    $ python -m tests.simulation --first 1 --seeds 10000
    $ python -m tests.simulation --seeds 500..600 --jobs 1
    $ python -m tests.simulation --replay 4711

Interrupted (SIGINT, SIGTERM), it tells what it has found so far.
"""

import argparse
import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Final

from tests.simulation.runs import run_all
from tests.simulation.summary import Summary
from tests.simulation.world import simulate

CHUNK: Final = 250
"""Seeds that a process runs before it tells how it went."""

TRACED_MAX: Final = 3
PROGRESS_EVERY_S: Final = 1.0
PROGRESS_EVERY_S_IN_FILES: Final = 60.0


def main() -> int:
    """The exit code: 0 when no seed failed."""
    options = _parser().parse_args()
    if options.replay is not None:
        return replay(options.replay)
    seeds = _seeds(options.seeds, options.first)
    if options.digests:
        for seed in seeds:
            print(seed, simulate(seed, want_digest=True).digest)
        return 0
    began_s = time.monotonic()
    total = Summary()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        for summary in _run(seeds, options.jobs):
            total.merge(summary)
            _progress(summary, total, len(seeds), began_s)
    _end_progress()
    return _report(total, seeds, time.monotonic() - began_s)


def replay(seed: int) -> int:
    """Run one seed and print everything that happens."""
    print(f"Seed {seed}: time in s, and what happened")
    outcome = simulate(seed, trace=print, want_digest=True)
    print(f"{outcome.events} events, SHA-256 {outcome.digest}")
    for violation in outcome.violations:
        print(f"FAILED {violation}")
    return 1 if outcome.violations else 0


def _run(seeds: range, jobs: int) -> Iterator[Summary]:
    chunks = [seeds[i : i + CHUNK] for i in range(0, len(seeds), CHUNK)]
    if jobs == 1:
        yield from map(run_all, chunks)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(chunks)), spawn) as pool:
        try:
            for done in as_completed([pool.submit(run_all, chunk) for chunk in chunks]):
                yield done.result()
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation",
        description="Simulate workers, schedulers and clients under faults; see docs/simulation.md",
    )
    parser.add_argument("--seeds", default="1000", help="how many, or a range such as 500..600")
    parser.add_argument(
        "--first", type=int, default=1, help="the first seed, when a number is given"
    )
    parser.add_argument("--jobs", type=int, default=_cores(), help="processes (one for each core)")
    parser.add_argument("--replay", type=int, metavar="SEED", help="trace one seed")
    parser.add_argument(
        "--digests", action="store_true", help="print the SHA-256 of each seed's ledger"
    )
    return parser


def _seeds(text: str, first: int) -> range:
    start, dots, end = text.partition("..")
    try:
        return range(int(start), int(end) + 1) if dots else range(first, first + int(text))
    except ValueError:
        expected = "expected a number or a range such as 500..600"
        raise SystemExit(f"--seeds: {expected}, got {text!r}") from None


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


_told_s = 0.0


def _progress(news: Summary, total: Summary, seeds: int, began_s: float) -> None:
    global _told_s
    for outcome in news.failures:
        _end_progress()
        sys.stderr.write(f"seed {outcome.seed} failed: {outcome.violations[0]}\n")
    now_s, is_terminal = time.monotonic(), sys.stderr.isatty()
    every_s = PROGRESS_EVERY_S if is_terminal else PROGRESS_EVERY_S_IN_FILES
    if now_s - max(_told_s, began_s) < every_s:
        return
    _told_s = now_s
    rate = total.runs / (now_s - began_s)
    left_s = (seeds - total.runs) / rate
    line = (
        f"{total.runs:,} of {seeds:,} runs, {total.failed:,} failed; {rate:,.0f}/s, "
        f"{left_s / 60:.1f} min to go"
    )
    sys.stderr.write(f"\r{line}\x1b[K" if is_terminal else f"{line}\n")
    sys.stderr.flush()


def _end_progress() -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")


def _report(total: Summary, seeds: range, took_s: float) -> int:
    if not total.runs:
        return 1
    if total.runs < len(seeds):
        print(f"Interrupted: {len(seeds) - total.runs:,} runs were not made, or not counted.")
    print(
        f"Seeds {seeds[0]:,} to {seeds[-1]:,}: {total.runs:,} runs in {took_s:,.1f} s, "
        f"{1000 * total.processor_s / total.runs:.2f} ms of processor time each, "
        f"{total.failed:,} failed"
    )
    print("\n".join(total.lines()))
    for outcome in sorted(total.failures, key=lambda o: o.seed)[:TRACED_MAX]:
        print(f"\n--- seed {outcome.seed} failed; the trace of its run:")
        replay(outcome.seed)
    if total.failures:
        print("\nTo see a run again, event by event:")
    for outcome in sorted(total.failures, key=lambda o: o.seed):
        print(f"  make simulate REPLAY={outcome.seed}    # {outcome.violations[0]}")
    return 1 if total.failed or total.runs < len(seeds) else 0


if __name__ == "__main__":
    sys.exit(main())
