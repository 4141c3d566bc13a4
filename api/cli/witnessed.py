"""What witnesses have seen of a log, as they tell whoever asks."""

import asyncio
from collections.abc import Sequence
from typing import Final

import aiohttp
import msgspec

from api.cli.failures import CouldNotCheck
from ledger.archive.notes import (
    COSIGNATURE,
    NOTE_BYTES_MAX,
    BadNote,
    Note,
    Verifier,
    signers_of,
)
from ledger.archive.proof_signers import Cosigned, cosigned
from ledger.archive.verify.history import Point
from ledger.archive.witness import BadRequest, TreeHead, origin_hash

TIMEOUT_S: Final = 10.0


class Seen(msgspec.Struct, frozen=True):
    """The last checkpoint of a log that a witness cosigned."""

    point: Point
    by: tuple[Cosigned, ...]


async def last_seen(url: str, origin: str, witnesses: Sequence[Verifier]) -> Seen | None:
    """What a witness cosigned last of a log; None where it has not seen any. One of `witnesses`
    must have signed that: who answers at the URL is not known otherwise.

    Raises CouldNotCheck."""
    where = f"{url.rstrip('/')}/{origin_hash(origin)}/checkpoint"
    try:
        async with asyncio.timeout(TIMEOUT_S), aiohttp.ClientSession() as session:
            async with session.get(where, allow_redirects=False) as answer:
                if answer.status == 404:
                    return None
                if answer.status != 200:
                    raise CouldNotCheck(f"{where} answered {answer.status}")
                text = (await answer.content.read(NOTE_BYTES_MAX)).decode()
        note = Note.parse(text)
        head = TreeHead.parse(note.text)
        keys = signers_of(note, [each for each in witnesses if each.kind == COSIGNATURE])
    except (aiohttp.ClientError, OSError) as error:
        raise CouldNotCheck(f"{where}: {error or type(error).__name__}") from error
    except (UnicodeDecodeError, BadNote, BadRequest) as error:
        raise CouldNotCheck(f"{where} answered what is no cosigned checkpoint: {error}") from error
    if head.origin != origin:
        raise CouldNotCheck(f"{where} answered with a checkpoint of {head.origin}")
    point = Point(f"the checkpoint that {url} has seen", head.size, head.root, None, "")
    return Seen(point, tuple(cosigned(note, each) for each in keys))
