"""`python -m bench [NAME ...] [--json FILE] [--markdown FILE] [--quick | --full]`: all benches, or
those that are named."""

import argparse
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import structlog
import uvloop
from rich.console import Console

from bench import (
    archive,
    callbacks,
    drain,
    estimate,
    fairness,
    feed,
    lag,
    latency,
    lists,
    memory,
    overload,
    peers,
    proof,
    rebuild,
    recovery,
    remote,
    replay,
    rest,
    retention,
    soak,
    submit,
    uploads,
    verify,
)
from bench.measure import Measured
from bench.report import Report, machine, markdown, print_report, write_json
from bench.scale import FULL, QUICK, USUAL, Scale
from bench.servers import run_server

BENCHES: Final[Mapping[str, Callable[[Scale], Awaitable[Sequence[Measured]]]]] = {
    "submit": submit.run,
    "drain": drain.run,
    "grpc": remote.run,
    "fairness": fairness.run,
    "rest": rest.run,
    "retention": retention.run,
    "latency": latency.run,
    "memory": memory.run,
    "estimate": estimate.run,
    "rebuild": rebuild.run,
    "archive": archive.run,
    "verify": verify.run,
    "replay": replay.run,
    "proof": proof.run,
    "lag": lag.run,
    "lists": lists.run,
    "recovery": recovery.run,
    "callbacks": callbacks.run,
    "uploads": uploads.run,
    "feed": feed.run,
    "overload": overload.run,
    "peers": peers.run,
    "soak": soak.run,
}

BY_NAME_ONLY: Final = frozenset(("overload", "soak"))
"""Too long for a run of all."""


async def run(names: Sequence[str], scale: Scale) -> Report:
    """Run benches one after the other."""
    console = Console(stderr=True)
    began = time.monotonic()
    async with run_server("memory") as server:
        described = machine(await server.version())
    found: dict[str, Sequence[Measured]] = {}
    for name in names:
        with console.status(f"measuring {name}"):
            found[name] = await BENCHES[name](scale)
    return Report(described, found, time.monotonic() - began)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure ledgerq beside the floors of this machine. See bench/README.md.",
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)}; all but soak"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON too")
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="write the tables as text too"
    )
    parser.add_argument("--quick", action="store_true", help="little work: to see that it runs")
    parser.add_argument(
        "--full", action="store_true", help="a million tasks where that matters: takes long"
    )
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in BENCHES]
    if unknown:
        parser.error(f"no such bench: {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    scale = QUICK if arguments.quick else FULL if arguments.full else USUAL
    report = uvloop.run(
        run(arguments.names or [name for name in BENCHES if name not in BY_NAME_ONLY], scale)
    )
    print_report(Console(), report)
    if arguments.json is not None:
        write_json(arguments.json, report)
    if arguments.markdown is not None:
        arguments.markdown.write_text(markdown(report))


if __name__ == "__main__":
    main()
