"""Where the files of uploads lie while they arrive."""

import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from api.staging import PIECES_MAX, StagedFile, Staging


@pytest.fixture
async def staging(tmp_path: Path) -> AsyncIterator[Staging]:
    staging = Staging(tmp_path / "incoming")
    yield staging
    await staging.close()
    assert list((tmp_path / "incoming").iterdir()) == []


async def write(file: StagedFile, pieces: Sequence[bytes]) -> None:
    for piece in pieces:
        await file.write(piece)
    await file.end()


def assert_holds(file: StagedFile, content: bytes) -> None:
    assert file.path.read_bytes() == content
    assert (file.size, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([], id="none"),
        pytest.param([b"%d" % (n % 10) for n in range(3 * PIECES_MAX + 1)], id="many-small"),
        pytest.param([bytes([n]) * 200_000 for n in range(5)], id="large"),
    ],
)
async def test_a_file_holds_all_its_pieces(staging: Staging, pieces: Sequence[bytes]):
    async with staging.place() as place:
        file = place.file()
        await write(file, pieces)

        assert_holds(file, b"".join(pieces))


async def test_what_the_disk_takes_in_parts_is_whole(
    staging: Staging, monkeypatch: pytest.MonkeyPatch
):
    def two_bytes(descriptor: int, pieces: Sequence[bytes]) -> int:
        return os.write(descriptor, pieces[0][:2])

    monkeypatch.setattr("api.staging.os.writev", two_bytes)
    async with staging.place() as place:
        file = place.file()
        await write(file, [b"hello", b", ", b"world"])

        assert_holds(file, b"hello, world")


async def test_a_file_that_nobody_took_is_gone_with_its_upload(staging: Staging, tmp_path: Path):
    async with staging.place() as place:
        left, taken = place.file(), place.file()
        await write(left, [b"left"])
        await write(taken, [b"taken"])
        kept = taken.path.rename(tmp_path / "kept")
        taken.taken()

        path = left.path

    assert not path.exists()
    assert kept.read_bytes() == b"taken"


async def test_a_folder_that_was_taken_away_is_made_again(staging: Staging, tmp_path: Path):
    async with staging.place() as place:
        await write(place.file(), [b"before"])
        shutil.rmtree(tmp_path / "incoming")
        after = place.file()
        await write(after, [b"after"])

        assert_holds(after, b"after")
