"""Archives, as commands are told of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from api.cli.failures import CliError
from ledger.archive.checkpoint import Checkpoint, NoCheckpoint
from ledger.archive.notes import BadNote, Note, Verifier
from ledger.archive.reader import log_prefix
from ledger.archive.tiles import CHECKPOINT
from ledger.objects import ObjectStore
from ledger.redis_store import RedisStore
from ledger.settings import Settings

ARCHIVE: Final = "archive/"
PARTITIONS_MAX: Final = 64
EPOCHS_TOLD: Final = 10


class Found(msgspec.Struct, frozen=True):
    """The logs of a ledger that an archive has."""

    epoch: str
    partitions: Sequence[int]
    sizes: Mapping[int, int]
    """What the logs' checkpoints say, for a progress bar."""


def archive_settings(settings: Settings, archive: str) -> Settings:
    """The settings for an archive that is named as a folder or a URL. Raises CliError."""
    if archive.startswith(("s3://", "file://")):
        return replace(settings, object_store_url=archive)
    folder = Path(archive).absolute()
    if not (folder / ARCHIVE).is_dir():
        raise CliError(f"there is no archive in {folder}: expected a folder that has {ARCHIVE}")
    return replace(settings, object_store_url=folder.as_uri())


def trusted_keys(given: Sequence[str]) -> tuple[Verifier, ...]:
    """Public keys as they are handed around, or `@FILE` with one a line. Raises CliError."""
    try:
        return tuple(Verifier.parse(line) for each in given for line in _lines_of(each))
    except OSError as error:
        raise CliError(f"{error.filename}: {error.strerror}") from error
    except (BadNote, UnicodeDecodeError) as error:
        raise CliError(str(error)) from error


def _lines_of(given: str) -> list[str]:
    return Path(given[1:]).read_text().split() if given.startswith("@") else [given]


async def find_archive(
    objects: ObjectStore,
    epoch: str | None,
    keys: Sequence[Verifier],
    store: RedisStore | None,
) -> Found:
    """Whose logs there are: the ledger's at hand, else of the epoch that is named, or that a key
    says, or else of the only one in the archive. Raises CliError, ObjectStoreError."""
    if store is not None:
        epoch = await store.epoch()
        named = _epoch_in(keys)
        if named not in (None, epoch):
            raise CliError(f"the keys are of the ledger {named}, and this is {epoch}")
        partitions: Sequence[int] = range(store.partitions)
    else:
        epoch = epoch or _epoch_in(keys) or await _only_epoch(objects)
        partitions = [
            each for each in range(PARTITIONS_MAX) if await _is_there(objects, epoch, each)
        ]
        if not partitions:
            raise CliError(f"the archive has no log of the ledger {epoch}: see --epoch")
    sizes = {each: await _size(objects, epoch, each) for each in partitions}
    return Found(epoch, partitions, sizes)


def _epoch_in(keys: Sequence[Verifier]) -> str | None:
    """The ledger that keys are named for."""
    epochs = {_epoch_of(each.name) for each in keys} - {None}
    if len(epochs) > 1:
        raise CliError("the keys are of several ledgers: expected those of one")
    return epochs.pop() if epochs else None


def _epoch_of(origin: str) -> str | None:
    match origin.split("/"):
        case ["ledgerq", epoch, _] if epoch:
            return epoch
        case _:
            return None


async def _only_epoch(objects: ObjectStore) -> str:
    """Raises CliError where there are several: what is told of one says nothing of the others."""
    folders = await objects.folders(ARCHIVE.removesuffix("/"))
    found = [epoch for each in folders if (epoch := await _epoch_below(objects, ARCHIVE + each))]
    if not found:
        raise CliError("there is no checkpoint in the archive that says whose it is: give --epoch")
    if len(found) > 1:
        raise CliError(f"several ledgers lie in the archive: give --epoch, one of {_some(found)}")
    return found[0]


async def _epoch_below(objects: ObjectStore, folder: str) -> str | None:
    """The whole of it stands in the checkpoints alone."""
    for partition in await objects.folders(folder):
        try:
            packed = await objects.read(f"{folder}/{partition}/{CHECKPOINT}")
        except FileNotFoundError:
            continue
        if epoch := _epoch_of(packed.decode(errors="replace").split("\n")[0]):
            return epoch
    return None


def _some(epochs: Sequence[str]) -> str:
    more = len(epochs) - EPOCHS_TOLD
    return ", ".join(epochs[:EPOCHS_TOLD]) + (f" and {more:,} more" if more > 0 else "")


async def _is_there(objects: ObjectStore, epoch: str, partition: int) -> bool:
    async for page in objects.listed(log_prefix(epoch, partition).removesuffix("/")):
        return bool(page)
    return False


async def _size(objects: ObjectStore, epoch: str, partition: int) -> int:
    try:
        note = Note.parse((await objects.read(log_prefix(epoch, partition) + CHECKPOINT)).decode())
        return Checkpoint.parse(note.text).size
    except (FileNotFoundError, UnicodeDecodeError, BadNote, NoCheckpoint):
        return 0  # what is wrong is found when it is verified
