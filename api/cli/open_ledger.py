"""The ledger itself, for commands that look at it without a service."""

import contextlib
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path

from msgspec.structs import replace
from redis.exceptions import RedisError

from api.cli.failures import CliError
from consumers.roles import store_options
from ledger.archive.joined import Joined
from ledger.archive.reader import Archive
from ledger.embedded import EmbeddedServer, running_server
from ledger.embedded.data_dir import APPEND_DIR_NAME
from ledger.objects import open_objects
from ledger.redis_store import LedgerMismatch, RedisStore, ledger_facts
from ledger.rejections import Rejection
from ledger.settings import Settings
from ledger.settings_sources import masked

LOOK_TIMEOUT_MS = 3_000
"""Until a server counts as out of reach for a look."""


@contextlib.asynccontextmanager
async def server_of(settings: Settings) -> AsyncGenerator[str]:
    """The URL of the server named, or of the data directory's own: the running one; or one that is
    started for as long as this context lasts, which only a directory with a ledger is worth.

    Raises CliError, EmbeddedServerError.
    """
    data_dir = Path(settings.data_dir)
    running = settings.redis_url or running_server(data_dir)
    if running is not None:
        yield running
    elif (data_dir / APPEND_DIR_NAME).is_dir():
        async with EmbeddedServer(data_dir, durability=settings.durability) as server:
            yield server.url
    else:
        raise CliError(
            f"there is no ledger in {data_dir}: give --data-dir, or --redis URL of a server that"
            " holds one"
        )


@contextlib.asynccontextmanager
async def open_ledger(settings: Settings) -> AsyncGenerator[RedisStore]:
    """The ledger for reading, with as many partitions as it has; none is ever made here.

    Raises CliError, EmbeddedServerError, Rejection.
    """
    async with server_of(settings) as url:
        facts = await _facts(url)
        if "partitions" not in facts:
            raise CliError(f"the server at {masked(url)} holds no ledger of ledgerq")
        options = replace(store_options(settings), partitions=int(facts["partitions"]))
        try:
            store = await RedisStore.open(url, options)
        except LedgerMismatch as error:
            raise CliError(str(error)) from error
        try:
            yield store
        finally:
            await store.close()


@contextlib.asynccontextmanager
async def open_events(settings: Settings) -> AsyncGenerator[Joined]:
    """All events of the ledger, from its stream and its archive. Raises as `open_ledger`."""
    async with open_ledger(settings) as store:
        objects = open_objects(settings)
        try:
            yield Joined(store, Archive(objects, await store.epoch(), store.partitions))
        finally:
            await objects.close()


async def _facts(url: str) -> Mapping[str, str]:
    """Format, partitions and epoch of the ledger at `url`; empty when there is none."""
    try:
        return await ledger_facts(url, LOOK_TIMEOUT_MS)
    except ValueError as error:
        raise CliError(f"--redis {masked(url)}: {error}") from error
    except (Rejection, RedisError) as error:
        raise CliError(f"{masked(url)}: {error}") from error
