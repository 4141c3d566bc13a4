"""`ledgerq erase`"""

import asyncio
import contextlib
from typing import Annotated, Final

import msgspec
from cyclopts import Parameter
from redis.exceptions import RedisError

from api.cli.client import own_name
from api.cli.failures import CliError, NotWhole
from api.cli.flags import AsJson, DataDir, KeyFile, RedisUrl, TaskId, load_settings
from api.cli.open_ledger import open_ledger
from api.cli.output import print_fields, print_json
from consumers.archiver import CANNOT_SEAL, Archiver, archiver_options
from consumers.erase_task import Erasure, erase_task
from ledger.archive.evicted import EvictedTasks
from ledger.archive.joined import Joined
from ledger.archive.reader import Archive
from ledger.codec import Meta
from ledger.identity import is_task_id
from ledger.objects import open_objects
from ledger.redis_archive import RedisArchive
from ledger.redis_connection import send
from ledger.redis_store import RedisStore
from ledger.settings import Settings
from ledger.store import Position

REASON_CHARACTERS_MAX: Final = 1_000
LOOK_S: Final = 0.25


class Erased(msgspec.Struct, frozen=True):
    """What became of it. `removed`: the archive and the streams have nothing any more."""

    task_id: str
    position: str
    events: int
    new: bool
    removed: bool


def erase(
    task_id: TaskId,
    /,
    *,
    reason: Annotated[str, Parameter(help="why; it stays, so it must not say what is erased")],
    actor: Annotated[
        str | None, Parameter(help="who wants it [default: your name on this machine]")
    ] = None,
    wait: Annotated[
        float,
        Parameter(help="for the archive to be done too [default: 60]", metavar="SECONDS"),
    ] = 60.0,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
    archive_key_file: KeyFile = None,
    json: AsJson = False,
) -> int:
    """Removes payload, metadata, callback_url, result, messages, errors and the uploaded file of a
    finished task: from Redis, from the read models, from the archive. That the task was there, and
    what happened to it when, stays, and can still be proved. There is no way back. Exit code 3 when
    the archive was not done in time; the archiver goes on, or call this again."""
    if not is_task_id(task_id):
        raise CliError(f"expected the id of a task, got {task_id[:80]!r}")
    if not reason.strip() or len(reason) > REASON_CHARACTERS_MAX:
        raise CliError(f"--reason: expected 1 to {REASON_CHARACTERS_MAX} characters")
    settings = load_settings(
        redis_url=redis_url, data_dir=data_dir, archive_key_file=archive_key_file
    ).settings
    meta = Meta(actor=actor or own_name())
    found = asyncio.run(_erase(settings, task_id, reason, meta, wait))
    if json:
        print_json(found)
    else:
        _print(found)
    return 0 if found.removed else NotWhole.exit_code


async def _erase(
    settings: Settings, task_id: str, reason: str, meta: Meta, wait_s: float
) -> Erased:
    async with open_ledger(settings) as store:
        objects = open_objects(settings)
        try:
            archive = Archive(objects, await store.epoch(), store.partitions)
            store.past = EvictedTasks(archive, store.epoch)
            erasure = await erase_task(store, Joined(store, archive), task_id, reason, meta)
        finally:
            await objects.close()
        removed = await _removed(settings, store, erasure, wait_s)
        if removed:
            # Until it is written anew, the append-only file has what was appended.
            with contextlib.suppress(RedisError):
                await send(store.client, ("BGREWRITEAOF",))
    return Erased(task_id, str(erasure.position), erasure.events, erasure.new, removed)


async def _removed(settings: Settings, store: RedisStore, erasure: Erasure, wait_s: float) -> bool:
    """Wait for the archiver; where there is none, do its work."""
    position = erasure.position
    loop = asyncio.get_running_loop()
    until_s = loop.time() + wait_s
    fence = RedisArchive(store.client, store.partitions, settings.redis_timeout_ms)
    while not await _is_done(store, position):
        if not (await fence.view(position.partition)).owner:
            archiver = Archiver(store, open_objects(settings), archiver_options(settings))
            try:
                await archiver.seal_once()
            except CANNOT_SEAL as error:
                raise CliError(
                    f"the task is erased for all who ask, but not in the archive: {error}"
                ) from error
            return await _is_done(store, position)
        if loop.time() >= until_s:
            return False
        await asyncio.sleep(LOOK_S)
    return True


async def _is_done(store: RedisStore, position: Position) -> bool:
    erased = (await store.archive_state(position.partition)).erased
    return Position(position.partition, erased).order >= position.order


def _print(found: Erased) -> None:
    when = "now" if found.new else "before"
    rows = [("task", found.task_id), ("erased", f"{when}, by the event {found.position}")]
    rows.append(("events", f"{found.events} had something to be removed"))
    if found.removed:
        rows.append(("archive", "nothing is left there"))
    else:
        rows.append(("archive", "not done yet: a running archiver goes on, or call this again"))
    print_fields(rows)
