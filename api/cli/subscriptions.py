"""`ledgerq subscriptions`, and its `remove` and `seek`."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from cyclopts import App, Parameter

from api.cli.failures import CliError
from api.cli.flags import AsJson, DataDir, RedisUrl, load_settings
from api.cli.open_ledger import open_ledger
from api.cli.output import print_json, print_table
from api.subscriptions import SubscriptionList, SubscriptionView, subscription_list
from consumers.subscription_start import checkpoints
from consumers.subscription_status import followers
from ledger.archive.joined import Joined
from ledger.archive.reader import Archive
from ledger.objects import open_objects
from ledger.redis_store import RedisStore
from ledger.redis_subscriptions import RedisSubscriptions
from ledger.settings import Settings
from ledger.store import Position, positions_text

app = App(
    name="subscriptions",
    help="Show who follows the ledger, how far behind each is, and what holds back trimming.",
    help_format="plaintext",
    help_epilogue="Examples:\n  ledgerq subscriptions\n  ledgerq subscriptions --json"
    "\n  ledgerq subscriptions seek billing --to 2026-11-05T08:30:00Z"
    "\n  ledgerq subscriptions remove billing",
    default_parameter=Parameter(negative=(), show_default=False),
)

HEADINGS = ("subscription", "lag", "members", "partition", "position", "read by", "state")
LEAST = ("position", "read by", "partition")

GroupName = Annotated[str, Parameter(help="name of the subscription")]


@app.default
def subscriptions(
    *, data_dir: DataDir = None, redis_url: RedisUrl = None, json: AsJson = False
) -> int:
    """Exit code 1 when one does not go on, or is so far behind that trimming does not wait."""

    async def look(
        subscriptions: RedisSubscriptions, _store: RedisStore, settings: Settings
    ) -> Any:
        return subscription_list(
            await followers(subscriptions, settings.subscription_hold_s * 1_000)
        )

    found: SubscriptionList = _run(look, data_dir, redis_url)
    if json:
        print_json(found)
    elif found.subscriptions:
        rows = [row for one in found.subscriptions for row in _rows(one)]
        print_table(HEADINGS, rows, least=LEAST)
    else:
        print("ledgerq: nobody follows the ledger: see docs/subscriptions.md", file=sys.stderr)
    return int(any(one.halted or one.overdue for one in found.subscriptions))


def _rows(one: SubscriptionView) -> list[tuple[str, ...]]:
    """One for each partition."""
    state = "halted" if one.halted else "overdue" if one.overdue else "ok"
    return [
        (
            one.group,
            "?" if at.lag_events is None else f"{at.lag_events:,}",
            str(len(one.members)),
            str(at.partition),
            at.position,
            at.member or "-",
            f"{state}: {one.halted}" if one.halted else state,
        )
        for at in one.partitions
    ]


@app.command(
    help="Forget a subscription: it holds back nothing any more, and its members end.",
    help_epilogue="Example:\n  ledgerq subscriptions remove billing",
)
def remove(group: GroupName, /, *, data_dir: DataDir = None, redis_url: RedisUrl = None) -> None:
    """Says where it was."""

    async def remove(
        subscriptions: RedisSubscriptions, _store: RedisStore, _settings: Settings
    ) -> str | None:
        found = await followers(subscriptions, 0)
        at = [s for s in found.groups if s.name == group and s.group is not None]
        if not await subscriptions.remove(group):
            return None
        return positions_text(one.position for one in at[0].partitions) if at else ""

    was_at = _run(remove, data_dir, redis_url)
    if was_at is None:
        raise _unknown(group)
    if was_at:
        print(f"{group} was at {was_at}; a new one goes on there with start={was_at!r}")
    else:
        print(f"{group} is removed; where it was could not be read")


@app.command(
    help="Say where a subscription goes on: forwards, back, or after it was halted.",
    help_epilogue="Examples:\n  ledgerq subscriptions seek billing --to now"
    "\n  ledgerq subscriptions seek billing --to beginning"
    "\n  ledgerq subscriptions seek billing --to 0:1763811000123-0"
    "\n  ledgerq subscriptions seek billing --to 2026-11-05T08:30:00Z",
)
def seek(
    group: GroupName,
    /,
    *,
    to: Annotated[
        str,
        Parameter(
            help="`beginning`, `now`, a position (or several, separated by commas), or a time"
        ),
    ],
    data_dir: DataDir = None,
    redis_url: RedisUrl = None,
) -> None:
    """Members go on from there within about a second."""

    async def seek(
        subscriptions: RedisSubscriptions, store: RedisStore, settings: Settings
    ) -> str | None:
        known = await subscriptions.group(group)
        if known is None:
            return None
        objects = open_objects(settings)
        events = Joined(store, Archive(objects, "", store.partitions))
        try:
            found = await checkpoints(store, subscriptions, to, events)
        except ValueError as error:
            raise CliError(f"--to: {str(error).removeprefix('start: ')}") from error
        finally:
            await objects.close()
        for partition, checkpoint in enumerate(found):
            await subscriptions.seek(partition, known.tag(group), checkpoint)
        return positions_text(Position(p, at.entry) for p, at in enumerate(found))

    goes_on_at = _run(seek, data_dir, redis_url)
    if goes_on_at is None:
        raise _unknown(group)
    print(f"{group} goes on after {goes_on_at}")


Work = Callable[[RedisSubscriptions, RedisStore, Settings], Awaitable[Any]]


def _run(work: Work, data_dir: str | None, redis_url: str | None) -> Any:
    """Do it on the ledger itself, which needs no service."""
    settings = load_settings(data_dir=data_dir, redis_url=redis_url).settings

    async def run() -> Any:
        async with open_ledger(settings) as store:
            subscriptions = RedisSubscriptions(
                store.client, store.partitions, settings.redis_timeout_ms
            )
            return await work(subscriptions, store, settings)

    return asyncio.run(run())


def _unknown(group: str) -> CliError:
    return CliError(f"there is no subscription {group!r}: see `ledgerq subscriptions`")
