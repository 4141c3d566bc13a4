"""A witness that runs, asked by the writer of a log and by whoever verifies it."""

import asyncio
import contextlib
import stat
import time
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from msgspec.structs import replace

from api.bind import bind
from api.cli.failures import CouldNotCheck
from api.cli.witnessed import last_seen
from api.witness.memory import KEY_FILE, BadMemory, WitnessMemory
from api.witness.server import Witness, served
from consumers import cosigning
from consumers.cosigning import Cosigners
from consumers.meters import Meter
from ledger.archive.checkpoint import Checkpoint
from ledger.archive.keys import KeyFile
from ledger.archive.notes import Note, NoteSigner, Verifier, unpack_notes
from ledger.archive.reader import Archive
from ledger.archive.verify.faults import Kind, Verdict
from ledger.archive.verify.log import Options
from ledger.archive.witness import SIZE_TYPE, AddCheckpoint, origin_hash
from ledger.archive.writer import LogWriter
from tests.ledger.archive.kept import Kept, verified
from tests.ledger.archive.sealed import EPOCH, key_file, lives, may_sign, seal
from tests.ledger.archive.sealed import opened as sealing

ORIGIN = f"ledgerq/{EPOCH}/0"
EVENTS = lives(90)


@pytest.fixture
def keys(tmp_path: Path) -> KeyFile:
    return key_file(tmp_path)


@pytest.fixture
def log_key(keys: KeyFile) -> Verifier:
    return keys.keys().verifiers(ORIGIN)[0]


@contextlib.asynccontextmanager
async def witness(folder: Path, log_key: Verifier) -> AsyncGenerator[tuple[str, Verifier]]:
    """Its URL and its key."""
    with (
        WitnessMemory.opened(folder / "witness", "witness.example/w") as memory,
        contextlib.closing(bind("127.0.0.1", 0)) as listener,
    ):
        async with served(Witness(memory, [log_key]), listener):
            port = listener.getsockname()[1]
            yield f"http://127.0.0.1:{port}", memory.signer.verifier


@contextlib.asynccontextmanager
async def cosigners(
    url: str, key: Verifier, meter: Meter | None = None, timeout_s: float = 5.0
) -> AsyncGenerator[Cosigners]:
    asked = Cosigners([cosigning.Witness(url, key)], timeout_s, meter or Meter())
    yield asked
    await asked.close()


async def opened(kept: Kept, keys: KeyFile, asked: Cosigners) -> LogWriter:
    writer = LogWriter(Archive(kept, EPOCH, 1), 0, keys, cosigners=asked)
    await writer.open()
    return writer


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_checkpoints_are_cosigned_as_they_are_made(
    tmp_path: Path, keys: KeyFile, log_key: Verifier
) -> None:
    kept, meter = Kept(), Meter()
    async with witness(tmp_path, log_key) as (url, key), cosigners(url, key, meter) as asked:
        await seal(await opened(kept, keys, asked), EVENTS, 30)
        await seal(await opened(kept, keys, asked), [], 30)
        seen = await last_seen(url, ORIGIN, [key])

    assert key.signed(Note.parse(kept["checkpoint"].decode()))
    cosigned = [key.signed(note) for note in unpack_notes(kept["checkpoints/000"])]
    assert cosigned == [True, True, False]
    assert meter.meters.checkpoints_cosigned == 3
    assert seen is not None and seen.point.size == 90
    report = await verified(kept, Options(keys=(log_key,), witnesses=(key,), seen=(seen.point,)))
    assert report.faults == ()
    assert report.witnessed == {key.vkey: 90}


async def test_who_has_not_cosigned_the_last_checkpoint_is_asked_again(
    tmp_path: Path, keys: KeyFile, log_key: Verifier
) -> None:
    # given a log that was sealed when it had no witness
    kept, meter = Kept(), Meter()
    await seal(await sealing(kept, keys), EVENTS, 90)
    async with witness(tmp_path, log_key) as (url, key), cosigners(url, key, meter) as asked:
        # when an archiver that knows one has nothing to seal, again and again, and begins anew
        for _ in range(2):
            writer = await opened(kept, keys, asked)
            for _ in range(2):
                await writer.publish_again(may_sign)

    # then it was cosigned, once
    assert meter.meters.checkpoints_cosigned == 1
    report = await verified(kept, Options(keys=(log_key,), witnesses=(key,)))
    assert report.faults == ()
    assert report.witnessed == {key.vkey: 90}


async def test_what_a_witness_has_seen_outlives_it(
    tmp_path: Path, keys: KeyFile, log_key: Verifier
) -> None:
    kept = Kept()
    async with witness(tmp_path, log_key) as (url, key), cosigners(url, key) as asked:
        await seal(await opened(kept, keys, asked), EVENTS[:30], 30)

    async with witness(tmp_path, log_key) as (url, again), cosigners(url, key) as asked:
        assert again == key
        await seal(await opened(kept, keys, asked), EVENTS[30:], 30)
        seen = await last_seen(url, ORIGIN, [key])

    assert seen is not None and seen.point.size == 90
    mode = (tmp_path / "witness" / KEY_FILE).stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


async def test_a_rewritten_history_is_not_cosigned_and_is_found(
    tmp_path: Path, keys: KeyFile, log_key: Verifier
) -> None:
    first, second, meter = Kept(), Kept(), Meter()
    rewritten = [replace(EVENTS[0], at=EVENTS[0].at + 1), *EVENTS[1:]]
    async with witness(tmp_path, log_key) as (url, key), cosigners(url, key, meter) as asked:
        await seal(await opened(first, keys, asked), EVENTS[:30], 30)
        await seal(await opened(second, keys, asked), rewritten, 90)
        seen = await last_seen(url, ORIGIN, [key])

    assert meter.meters.cosignings_failed == 1
    assert seen is not None and seen.point.size == 30
    report = await verified(second, Options(witnesses=(key,), seen=(seen.point,)))
    assert {(fault.kind, fault.where) for fault in report.faults} == {
        (Kind.MISSING, "checkpoint"),
        (Kind.FORGED, seen.point.where),
    }


async def test_sealing_goes_on_without_a_witness(
    tmp_path: Path, keys: KeyFile, log_key: Verifier
) -> None:
    """One that is not there, and one that never answers."""
    stranger = NoteSigner("witness.example/gone", b"9" * 32, 4).verifier
    with contextlib.closing(bind("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        for where in (url, "http://127.0.0.1:1"):
            kept, meter = Kept(), Meter()
            async with cosigners(where, stranger, meter, timeout_s=0.2) as asked:
                await seal(await opened(kept, keys, asked), EVENTS, 30)

            assert meter.meters.cosignings_failed == 1  # it is left alone for a while then
            assert (await verified(kept)).faults == ()


async def test_the_answers_of_the_protocol(
    tmp_path: Path, keys: KeyFile, log_key: Verifier, session: aiohttp.ClientSession
) -> None:
    kept = Kept()
    async with witness(tmp_path, log_key) as (url, key), cosigners(url, key) as asked:
        await seal(await opened(kept, keys, asked), EVENTS[:30], 30)
        note = Note.parse(kept["checkpoint"].decode())

        async def answer(body: bytes) -> tuple[int, str, str]:
            async with session.post(f"{url}/add-checkpoint", data=body) as got:
                return got.status, got.content_type, await got.text()

        conflict = await answer(AddCheckpoint(0, (), note).body)
        again = await answer(AddCheckpoint(30, (), note).body)
        no_request = await answer(b"nothing")
        too_large = await answer(b"old 0\n\n" + b"x" * 1_000_000)
        unknown = note.text.replace(EPOCH, EPOCH[::-1])
        not_found = await answer(AddCheckpoint(0, (), Note(unknown, note.signatures)).body)
        async with session.get(f"{url}/{origin_hash('unknown')}/checkpoint") as got:
            missing = got.status

    assert conflict == (409, SIZE_TYPE, "30\n")
    assert again[0] == 200 and again[2].startswith("\u2014 witness.example/w ")
    assert (no_request[0], too_large[0], not_found[0], missing) == (400, 413, 404, 404)


async def test_checkpoints_at_once_never_take_a_witness_back(
    tmp_path: Path, keys: KeyFile, log_key: Verifier, session: aiohttp.ClientSession
) -> None:
    """Each is asked for from the same old size: one is cosigned, the others conflict."""
    kept = Kept()
    writer = LogWriter(Archive(kept, EPOCH, 1), 0, keys)
    await writer.open()
    await seal(writer, EVENTS, 10)
    notes = unpack_notes(kept["checkpoints/000"])
    async with witness(tmp_path, log_key) as (url, key):

        async def ask(note: Note) -> int:
            body = AddCheckpoint(0, (), note).body
            async with session.post(f"{url}/add-checkpoint", data=body) as got:
                return got.status

        answers = await asyncio.gather(*map(ask, notes))
        seen = await last_seen(url, ORIGIN, [key])

    assert sorted(answers) == [200] + [409] * (len(notes) - 1)
    assert seen is not None
    assert seen.point.size == Checkpoint.parse(notes[answers.index(200)].text).size


async def test_one_folder_is_for_one_witness(tmp_path: Path, log_key: Verifier) -> None:
    async with witness(tmp_path, log_key):
        with pytest.raises(BadMemory, match="another witness runs"):
            async with witness(tmp_path, log_key):
                pass

    with (
        pytest.raises(BadMemory, match=r"is called .*, and not other"),
        WitnessMemory.opened(tmp_path / "witness", "other"),
    ):
        pass


async def test_a_witness_that_cannot_be_asked_is_one_clear_line() -> None:
    with pytest.raises(CouldNotCheck, match=r"127\.0\.0\.1:1"):
        await last_seen("http://127.0.0.1:1", ORIGIN, [])


async def test_an_answer_that_no_trusted_witness_signed_says_nothing(
    tmp_path: Path, keys: KeyFile, log_key: Verifier
) -> None:
    """Nor one that only the log's own key signed."""
    stranger = NoteSigner("witness.example/other", b"9" * 32, 4).verifier
    async with witness(tmp_path, log_key) as (url, key), cosigners(url, key) as asked:
        await seal(await opened(Kept(), keys, asked), EVENTS[:30], 30)
        seen = await last_seen(url, ORIGIN, [stranger, key])
        for known in ([], [stranger], [log_key]):
            with pytest.raises(CouldNotCheck, match="signed by none of the keys"):
                await last_seen(url, ORIGIN, known)

    assert seen is not None
    ((name, at_s),) = [(each.name, each.at_s) for each in seen.by]
    assert name == key.name and abs(time.time() - at_s) < 60


async def test_an_archive_that_no_witness_knows_is_incomplete(keys: KeyFile) -> None:
    kept = Kept()
    writer = LogWriter(Archive(kept, EPOCH, 1), 0, keys)
    await writer.open()
    await seal(writer, EVENTS, 90)
    stranger = NoteSigner("witness.example/other", b"9" * 32, 4).verifier

    report = await verified(kept, Options(witnesses=(stranger,)))

    assert report.verdict is Verdict.INCOMPLETE
    assert "has cosigned no checkpoint" in report.faults[0].reason
