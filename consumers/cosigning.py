"""Asks witnesses to cosign the archive's checkpoints (https://c2sp.org/tlog-witness).

Sealing does not depend on them: each has a time within which it must answer, and one that did not
is left alone for a while.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

import aiohttp
import msgspec
import structlog

from consumers.meters import Meter
from ledger.archive.notes import COSIGNATURE, BadNote, Note, Signature, Verifier
from ledger.archive.reader import Damaged, Incomplete, SealedLog
from ledger.archive.witness import AddCheckpoint
from ledger.objects import ObjectStoreError
from ledger.settings import Settings
from ledger.settings_sources import SettingsError

log = structlog.get_logger("archiver")

ANSWER_BYTES_MAX: Final = 16 * 1024
FIRST_PAUSE_S: Final = 5.0
LONGEST_PAUSE_S: Final = 300.0
TRIES: Final = 2
"""The first may be from another size than the witness's last one, which it tells then."""


class Witness(msgspec.Struct, frozen=True):
    """Where a witness is asked, and what its cosignatures are checked by."""

    url: str
    verifier: Verifier


def witnesses_of(settings: Settings) -> list[Witness]:
    """Those that the settings name. Raises SettingsError for what is no key."""
    pairs = (each.partition("=") for each in settings.witnesses)
    try:
        return [Witness(url.rstrip("/"), _cosigner(vkey)) for vkey, _, url in pairs]
    except BadNote as error:
        raise SettingsError([f"witnesses: {error}"]) from error


def _cosigner(vkey: str) -> Verifier:
    verifier = Verifier.parse(vkey)
    if verifier.kind != COSIGNATURE:
        raise BadNote(f"{vkey} is the key of a log, and not of a witness")
    return verifier


class NotCosigned(Exception):
    """A witness did not cosign; says why."""


class Cosigners:
    """All witnesses of an archive. Used within one event loop."""

    def __init__(self, witnesses: Sequence[Witness], timeout_s: float, meter: Meter) -> None:
        self._asked = [_Asked(each) for each in witnesses]
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._meter = meter
        self._session: aiohttp.ClientSession | None = None

    @property
    def verifiers(self) -> list[Verifier]:
        """Whose cosignatures there may be."""
        return [each.witness.verifier for each in self._asked]

    async def cosign(self, note: Note, sealed: SealedLog) -> list[Signature]:
        """Cosignatures that a checkpoint has not got, as could be had in time. `sealed` is the log
        as it is there."""
        now_s = asyncio.get_running_loop().time()
        ready = [
            each
            for each in self._asked
            if each.again_at_s <= now_s and not each.witness.verifier.lines_in(note)
        ]
        found = await asyncio.gather(*(self._cosigned(each, note, sealed) for each in ready))
        return [each for each in found if each is not None]

    async def close(self) -> None:
        """End the connections."""
        if self._session is not None:
            await self._session.close()

    async def _cosigned(self, asked: "_Asked", note: Note, sealed: SealedLog) -> Signature | None:
        name = asked.witness.verifier.name
        try:
            async with asyncio.timeout(self._timeout.total):
                signature = await self._ask(asked, note, sealed)
        except (
            NotCosigned,
            aiohttp.ClientError,
            OSError,  # TimeoutError too
            Damaged,
            Incomplete,
            ObjectStoreError,
        ) as error:
            self._meter.cosigned(False)
            reason = str(error) or type(error).__name__
            if not asked.failures:
                log.warning("witness_failed", witness=name, url=asked.witness.url, reason=reason)
            asked.failed(asyncio.get_running_loop().time())
            return None
        self._meter.cosigned(True)
        if asked.failures:
            log.info("witness_cosigns_again", witness=name)
        asked.failures = 0
        return signature

    async def _ask(self, asked: "_Asked", note: Note, sealed: SealedLog) -> Signature:
        origin, size = sealed.checkpoint.origin, sealed.size
        old = min(asked.sizes.get(origin, 0), size)
        for _ in range(TRIES):
            proof = await sealed.consistency_proof(old)
            status, text = await self._post(asked, AddCheckpoint(old, tuple(proof), note).body)
            if status == 200:
                signature = _checked(asked.witness.verifier, note, text)
                asked.sizes[origin] = size
                return signature
            latest = text.strip()
            if status != 409 or not (latest.isdecimal() and len(latest) <= 16):
                raise NotCosigned(f"it answered {status}: {' '.join(text.split())[:200]}")
            if int(latest) > size:
                raise NotCosigned(f"it has seen {latest} leaves of {origin}, which has {size} now")
            if int(latest) == old:
                raise NotCosigned(f"it has seen another history of {origin}, of {old} leaves")
            old = int(latest)
        raise NotCosigned("somebody else has checkpoints of the log cosigned")

    async def _post(self, asked: "_Asked", body: bytes) -> tuple[int, str]:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout)
        url = f"{asked.witness.url}/add-checkpoint"
        async with self._session.post(url, data=body, allow_redirects=False) as answer:
            said = bytearray()
            async for piece in answer.content.iter_any():
                said += piece
                if len(said) > ANSWER_BYTES_MAX:
                    raise NotCosigned("its answer is too long")
            return answer.status, said.decode(errors="replace")


class _Asked:
    """A witness, and how it went with it."""

    def __init__(self, witness: Witness) -> None:
        self.witness = witness
        self.sizes: dict[str, int] = {}
        """By log, what it cosigned last."""
        self.failures = 0
        self.again_at_s = 0.0

    def failed(self, now_s: float) -> None:
        """Leave it alone for a while, longer each time."""
        self.again_at_s = now_s + min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**self.failures)
        self.failures = min(self.failures + 1, 10)


def _checked(verifier: Verifier, note: Note, lines: str) -> Signature:
    """The witness's cosignature among the lines that it answered; others are ignored."""
    try:
        answered = Note.parse(f"{note.text}\n{lines}")
        if verifier.signed(answered):
            key = (verifier.name, verifier.key_id)
            return next(each for each in answered.signatures if (each.name, each.key_id) == key)
    except BadNote as error:
        raise NotCosigned(f"its answer is no cosignature: {error}") from error
    raise NotCosigned(f"its answer has no cosignature by {verifier.vkey}")
