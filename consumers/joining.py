"""How a member comes to a group: the ledger is found, and the group made or checked."""

import asyncio
import os
import socket
from pathlib import Path

import msgspec
import structlog

from consumers.membership import Membership
from consumers.programs import server_url
from consumers.service import backoff_s, through_outages
from consumers.subscribed_partition import Terms
from consumers.subscription_errors import GroupMismatch
from consumers.subscription_options import Options
from consumers.subscription_start import checkpoints
from ledger.archive.evicted import EvictedTasks
from ledger.archive.joined import Joined
from ledger.archive.reader import Archive
from ledger.objects import ObjectStore
from ledger.redis_store import RedisStore, StoreOptions, ledger_facts
from ledger.redis_subscriptions import RedisSubscriptions
from ledger.rejections import Rejection
from ledger.settings import Settings
from ledger.settings_sources import find_file, load, masked
from ledger.subscriptions import Filters, Group

log = structlog.get_logger("subscription")


async def join(store: RedisStore, objects: ObjectStore, options: Options) -> Membership:
    """A member of the group, which is made where it does not exist. Waits for a ledger that is out
    of reach. `objects` hold the archive. Raises GroupMismatch, TooManyGroups, ValueError."""
    archive = Archive(objects, "", store.partitions)
    events, past = Joined(store, archive), EvictedTasks(archive, store.epoch)
    subscriptions = RedisSubscriptions(store.client, store.partitions, StoreOptions().timeout_ms)
    name = options.name

    async def found_or_made() -> Group:
        known = await subscriptions.group(name)
        if known is not None:
            return known
        return await subscriptions.register(
            name, await _new_group(store, subscriptions, events, options)
        )

    group = await through_outages(found_or_made)
    if group.filters != options.filters:
        raise GroupMismatch(
            f"the subscription {name} wants {_told(group.filters)}, this member"
            f" {_told(options.filters)}: ask for the same, or take another name; `ledgerq"
            f" subscriptions remove {name}` forgets the group"
        )
    terms = Terms(name, group.tag(name), options.lease_ms, options.unacked_max)
    member = member_id(store.now_ms())
    membership = Membership(store, subscriptions, group, member, terms, events, past)
    membership.start()
    return membership


async def _new_group(
    store: RedisStore, subscriptions: RedisSubscriptions, events: Joined, options: Options
) -> Group:
    starts = await checkpoints(store, subscriptions, options.start, events)
    epoch = await store.epoch()
    return Group(os.urandom(4).hex(), epoch, store.now_ms(), options.filters, starts)


def _told(filters: Filters) -> str:
    told = msgspec.to_builtins(filters)
    named = (f"{name} {', '.join(values)}" for name, values in told.items())
    return " and ".join(named) or "all events"


def member_id(now_ms: int) -> str:
    """A name that nobody else has. Members are sorted by their names, hence by when they came: the
    older ones have the larger shares, so who comes takes no more away than it has to."""
    return f"{now_ms:012x}-{socket.gethostname()[:64]}-{os.getpid()}-{os.urandom(2).hex()}"


def settings_of(options: Options) -> Settings:
    """What the options and the settings say. Raises SettingsError."""
    flags = {"redis_url": options.redis_url, "data_dir": options.data_dir}
    return load(flags, os.environ, find_file(os.environ, Path.cwd())).settings


async def open_ledger(settings: Settings) -> RedisStore:
    """The ledger that the settings name, once it is there: waits for it."""
    url, failures, said = server_url(settings), 0, False
    while True:
        try:
            store = await _open_existing(settings, url)
        except Rejection as rejection:
            reason, store = rejection.message, None
        else:
            reason = "no service was started on it yet"
        if store is not None:
            return store
        if not said:
            said = True
            log.warning("subscription_waits_for_ledger", url=masked(url), reason=reason)
        failures += 1
        await asyncio.sleep(backoff_s(failures))


async def _open_existing(settings: Settings, url: str) -> RedisStore | None:
    facts = await ledger_facts(url, settings.redis_timeout_ms)
    if "partitions" not in facts:
        return None
    options = StoreOptions(
        partitions=int(facts["partitions"]), timeout_ms=settings.redis_timeout_ms
    )
    return await RedisStore.open(url, options)
