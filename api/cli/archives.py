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
    says, or else of the first one in the archive. Raises CliError, ObjectStoreError."""
    if store is not None:
        epoch = await store.epoch()
        named = _epoch_in(keys)
        if named not in (None, epoch):
            raise CliError(f"the keys are of the ledger {named}, and this is {epoch}")
        partitions: Sequence[int] = range(store.partitions)
    else:
        epoch = epoch or _epoch_in(keys) or await _first_epoch(objects)
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


async def _first_epoch(objects: ObjectStore) -> str:
    """The whole of it stands in the checkpoints alone."""
    async for page in objects.listed(ARCHIVE.removesuffix("/")):
        for each in page:
            if each.key.endswith(f"/{CHECKPOINT}"):
                epoch = _epoch_of(
                    (await objects.read(each.key)).decode(errors="replace").split("\n")[0]
                )
                if epoch is not None:
                    return epoch
    raise CliError("there is no checkpoint in the archive that says whose it is: give --epoch")


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
