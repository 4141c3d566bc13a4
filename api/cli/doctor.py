"""`ledgerq doctor`"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

from redis.exceptions import RedisError

from api.cli.checkup import ledger as ledger_checks
from api.cli.checkup import machine
from api.cli.checkup import read_model as read_model_checks
from api.cli.checkup import server as server_checks
from api.cli.checkup.finding import Finding, Level, fail, ok, warn
from api.cli.checkup.objects import object_store
from api.cli.failures import CliError
from api.cli.flags import AsJson, DataDir, RedisUrl, Url, load_settings
from api.cli.open_ledger import LOOK_TIMEOUT_MS, server_of
from api.cli.output import print_json, print_table
from ledger.embedded import EmbeddedServerError, running_server
from ledger.redis_connection import connect
from ledger.redis_subscriptions import CALLS_AT_ONCE
from ledger.settings import Settings
from ledger.settings_sources import Loaded, Origin, SettingsError, masked


def doctor(
    *,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
    url: Url = None,
    json: AsJson = False,
) -> int:
    """Exit code 1 when a check failed; a warning alone leaves it 0."""
    found = [machine.python()]
    try:
        loaded = load_settings(redis_url=redis_url, data_dir=data_dir, url=url)
    except SettingsError as error:
        found += [fail("settings", problem, "see `ledgerq settings`") for problem in error.problems]
    else:
        found.append(_settings(loaded))
        found += _outside(loaded)
    _print(found, as_json=json)
    return 1 if any(finding.level is Level.FAIL for finding in found) else 0


def _settings(loaded: Loaded) -> Finding:
    given = [source for source in loaded.sources.values() if source.origin is not Origin.DEFAULT]
    return ok("settings", f"{len(given)} set, {len(loaded.sources) - len(given)} as by default")


def _outside(loaded: Loaded) -> Iterator[Finding]:
    """Everything that is not in this process."""
    settings = loaded.settings
    yield from asyncio.run(_server(loaded))
    if settings.redis_url is None:
        yield from machine.data_dir(Path(settings.data_dir))
    yield from asyncio.run(object_store(settings))
    yield from read_model_checks.read_model(settings)
    yield machine.service(settings.url)


async def _server(loaded: Loaded) -> list[Finding]:
    settings = loaded.settings
    nothing_runs = settings.redis_url is None and running_server(Path(settings.data_dir)) is None
    if nothing_runs and loaded.sources["data_dir"].origin is not Origin.FLAG:
        # Only a directory named by hand is worth a start: a health check must not take the place
        # of a service that is just being restarted.
        return [
            warn("server", f"none runs on {settings.data_dir}", "`ledgerq up` starts everything")
        ]
    try:
        async with server_of(settings) as url:
            return await _look(url, settings)
    except (CliError, EmbeddedServerError) as error:
        return [fail("server", str(error), "")]


async def _look(url: str, settings: Settings) -> list[Finding]:
    where = masked(url)
    try:
        client = connect(url, timeout_ms=LOOK_TIMEOUT_MS, connections_max=CALLS_AT_ONCE)
    except ValueError as error:
        return [fail("server", f"{where}: {error}", "give --redis URL")]
    try:
        found = await server_checks.server(client, settings)
        return [*found, *await ledger_checks.ledger(client, settings)]
    except RedisError as error:
        return [fail("server", f"{where} is out of reach: {error}", "start it, or check --redis")]
    finally:
        await client.aclose()


def _print(found: list[Finding], *, as_json: bool) -> None:
    if as_json:
        failed = any(finding.level is Level.FAIL for finding in found)
        print_json({"ok": not failed, "checks": found})
        return
    rows = [
        (
            finding.level.value,
            finding.check,
            f"{finding.message}; {finding.advice}" if finding.advice else finding.message,
        )
        for finding in found
    ]
    print_table(("", "check", "found"), rows)
