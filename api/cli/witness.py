"""`ledgerq witness`"""

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import structlog
import uvloop
from cyclopts import Parameter

from api.bind import bind
from api.cli.archives import trusted_keys
from api.cli.failures import CliError
from api.cli.flags import DataDir, Format, Level, load_settings
from api.witness.memory import BadMemory, WitnessMemory
from api.witness.server import Witness, served
from consumers import logs
from consumers.signals import StopSignals

PORT: Final = 8086

log = structlog.get_logger("witness")


def witness(
    *,
    log_key: Annotated[
        tuple[str, ...],
        Parameter(
            name="--log",
            help="public key of a log to be witnessed; may be repeated. That of one partition of a"
            " ledger stands for all of them",
        ),
    ],
    name: Annotated[
        str | None,
        Parameter(help="its name, given when its key is made [default: HOST/witness]"),
    ] = None,
    host: Annotated[str, Parameter(help="address to listen on", show_default=True)] = "127.0.0.1",
    port: Annotated[
        int, Parameter(help="port to listen on; 0: a free one", show_default=True)
    ] = PORT,
    data_dir: DataDir = None,
    log_level: Level = None,
    log_format: Format = None,
) -> None:
    """It keeps its key and what it has seen in the folder witness of its data directory. Run it on
    another machine than the archive, by somebody else if that can be. SIGTERM: answers what is in
    work, and ends."""
    flags = {"data_dir": data_dir, "log_level": log_level, "log_format": log_format}
    settings = load_settings(**flags).settings
    logs.configure(settings, "witness")
    known = trusted_keys(log_key)
    folder = Path(settings.data_dir) / "witness"
    try:
        with WitnessMemory.opened(folder, name) as memory:
            uvloop.run(_serve(Witness(memory, known), memory, host, port, known))
    except BadMemory as error:
        raise CliError(str(error)) from error


async def _serve(
    witness: Witness, memory: WitnessMemory, host: str, port: int, known: Sequence[object]
) -> None:
    signals, stop = StopSignals(), asyncio.Event()
    signals.call(stop.set)
    try:
        listener = bind(host, port)
    except OSError as error:
        raise CliError(f"{error.strerror}: see --host and --port") from error
    with contextlib.closing(listener):
        bound_host, bound_port = listener.getsockname()[:2]
        async with served(witness, listener):
            key = memory.signer.verifier.vkey
            log.info("witness_started", host=bound_host, port=bound_port, key=key, logs=len(known))
            await stop.wait()
