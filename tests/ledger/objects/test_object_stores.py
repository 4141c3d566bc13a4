"""The promises of an object store, held by a folder and by a real S3 server."""

import asyncio
import ctypes
import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest
from aiohttp import web

from ledger.objects import ObjectStore, ObjectStoreError, open_objects, syncing, upload_key
from ledger.objects.keys import day_prefix
from ledger.objects.local_folder import LEFT_AFTER_S, WRITING
from ledger.settings import Settings
from ledger.settings_sources import SettingsError
from tests.object_stores import S3, run_s3

TASK: Final = "0193b9e0-5c31-7cc4-9f6e-3f0d3f0e7a11"
DAY: Final = date(2026, 11, 25)
EPOCH: Final = "5eed" * 8
KEY: Final = upload_key(EPOCH, DAY, TASK, "0123abcd", "report.pdf")
CONTENT: Final = os.urandom(700_000)


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    folder = tmp_path / "s3"
    folder.mkdir()
    with run_s3(folder) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture(params=["folder", "s3"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    url = request.getfixturevalue("s3").url if request.param == "s3" else None
    return Settings(data_dir=str(tmp_path / "data"), object_store_url=url)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(CONTENT)
    return path


async def content_of(store: ObjectStore, key: str) -> bytes:
    return b"".join([piece async for piece in store.stream(key)])


async def keys_of(store: ObjectStore, prefix: str) -> list[str]:
    return [each.key async for page in store.listed(prefix) for each in page]


async def test_what_was_put_is_there_until_it_is_deleted(settings: Settings, source: Path):
    store = open_objects(settings)

    await store.put(KEY, source, "application/pdf")

    assert not await asyncio.to_thread(source.exists)
    assert await content_of(store, KEY) == CONTENT
    assert b"".join(store.pieces(KEY)) == CONTENT
    ((listed,),) = [page async for page in store.listed(day_prefix(EPOCH, DAY))]
    assert (listed.key, listed.size) == (KEY, len(CONTENT))
    assert abs(datetime.now(UTC) - listed.modified) < timedelta(hours=1)
    await store.delete(KEY)
    assert await keys_of(store, day_prefix(EPOCH, DAY)) == []
    with pytest.raises(FileNotFoundError):
        await content_of(store, KEY)
    await store.close()


async def test_bytes_that_are_written_take_the_place_of_older_ones(settings: Settings):
    store = open_objects(settings)

    await store.write("archive/a/checkpoint", b"old")
    await store.write("archive/a/checkpoint", CONTENT)
    await store.write("archive/a/checkpoint.p/3", b"")

    assert await store.read("archive/a/checkpoint") == CONTENT
    assert await store.read("archive/a/checkpoint.p/3") == b""
    there = sorted(await keys_of(store, "archive/"))
    assert there == ["archive/a/checkpoint", "archive/a/checkpoint.p/3"]
    for missing in ("archive/b", "archive/a", "archive/a/checkpoint/1"):
        with pytest.raises(FileNotFoundError, match=missing):
            await store.read(missing)
    await store.close()


async def test_a_part_of_an_object_is_read_as_far_as_it_goes(settings: Settings):
    store = open_objects(settings)
    await store.write("archive/a/segment", CONTENT)
    size = len(CONTENT)

    for start, length in ((0, 1), (0, size), (17, 4_096), (size - 5, 5), (size - 5, 1 << 40)):
        found = await store.read_range("archive/a/segment", start, length)
        assert found == CONTENT[start : start + length]

    for start in (size, size + 1, 1 << 40):
        assert await store.read_range("archive/a/segment", start, 10) == b""
    for missing in ("archive/b", "archive/a", "archive/a/segment/1"):
        for start in (0, size):
            with pytest.raises(FileNotFoundError, match=missing):
                await store.read_range(missing, start, 10)
    await store.close()


async def test_a_part_cannot_be_read_from_a_server_that_is_gone(s3: S3):
    store = open_objects(Settings(object_store_url=s3.url))
    await store.write("archive/a/segment", CONTENT)
    s3.stop()

    with pytest.raises(ObjectStoreError, match="archive/a/segment"):
        await store.read_range("archive/a/segment", 0, 10)
    await store.close()


@pytest.mark.parametrize("status", [403, 503])
async def test_where_a_part_is_refused_the_whole_is_not_asked_for(
    status: int, monkeypatch: pytest.MonkeyPatch
):
    # given a store that refuses what it is asked for
    asked: list[str | None] = []

    async def refuse(request: web.Request) -> web.Response:
        asked.append(request.headers.get("range"))
        return web.Response(status=status)

    runner = web.AppRunner(web.Application())
    runner.app.router.add_get("/{key:.*}", refuse)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    [(host, port)] = runner.addresses
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    store = open_objects(Settings(object_store_url="s3://bucket/prefix"))
    # when a part of an object is read, then that is told
    with pytest.raises(ObjectStoreError, match="archive/a/segment"):
        await store.read_range("archive/a/segment", 0, 10)
    # and the store is not asked for more than that
    assert set(asked) == {"bytes=0-9"}
    await store.close()
    await runner.cleanup()


async def test_many_objects_are_written_and_read_at_once(settings: Settings):
    store = open_objects(settings)
    await store.write("archive/a/7", b"old")
    objects = [(f"archive/{'ab'[n % 2]}/{n}", CONTENT[:n]) for n in range(3 * syncing.MANY)]

    await store.write_all(objects)

    keys = [key for key, _ in objects]
    assert await store.read_all(keys) == [data for _, data in objects]
    assert sorted(await keys_of(store, "archive/")) == sorted(["archive/a/7", *keys])
    with pytest.raises(FileNotFoundError, match="archive/none"):
        await store.read_all([*keys, "archive/none"])
    await store.close()


async def test_of_many_objects_that_cannot_be_written_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # given a disk that fails when it is asked to keep what was written
    def on_ext4(_: Path) -> str:
        return "ext4"

    def fail(_: int) -> int:
        ctypes.set_errno(errno.EIO)
        return -1

    store = open_objects(Settings(data_dir=str(tmp_path)))
    monkeypatch.setattr(syncing, "_syncfs", fail)
    monkeypatch.setattr(syncing, "file_system", on_ext4)

    with pytest.raises(ObjectStoreError, match="Input/output error"):
        await store.write_all([(f"archive/{n}", b"data") for n in range(syncing.MANY)])

    assert [path for path in (tmp_path / "objects").rglob("*") if path.is_file()] == []
    await store.close()


async def test_what_a_killed_process_was_writing_is_cleared_away_an_hour_later(tmp_path: Path):
    store = open_objects(Settings(data_dir=str(tmp_path)))
    folder = tmp_path / "objects" / WRITING
    folder.mkdir(parents=True)
    for name, age_s in (("old", LEFT_AFTER_S + 60), ("new", 0)):
        (folder / name).write_bytes(b"half of")
        at_s = time.time() - age_s
        os.utime(folder / name, (at_s, at_s))

    await store.write("archive/a", b"whole")

    assert os.listdir(folder) == ["new"]
    await store.close()


async def test_nothing_is_listed_where_nothing_was_put_and_deleting_it_is_fine(settings: Settings):
    store = open_objects(settings)

    assert await keys_of(store, day_prefix(EPOCH, DAY)) == []
    await store.delete(KEY)
    await store.close()


async def test_only_the_days_own_objects_are_listed(settings: Settings, tmp_path: Path):
    store = open_objects(settings)
    days = [DAY, DAY + timedelta(days=1), DAY + timedelta(days=2)]
    for day in days:
        source = tmp_path / day.isoformat()
        source.write_bytes(b"x")
        await store.put(upload_key(EPOCH, day, TASK, "0" * 8, "a"), source, "text/plain")

    found = await keys_of(store, day_prefix(EPOCH, days[1]))

    assert found == [upload_key(EPOCH, days[1], TASK, "0" * 8, "a")]
    await store.close()


async def test_what_lies_right_below_a_prefix_is_listed_without_what_lies_below_that(
    settings: Settings,
):
    store = open_objects(settings)
    assert await store.folders("archive") == []
    for key in ("archive/a/0/x", "archive/a/1/x", "archive/b/0/x", "archive/alone", "other/c/x"):
        await store.write(key, b"x")

    assert await store.folders("archive") == ["a", "b"]
    assert await store.folders("archive/a") == ["0", "1"]
    await store.close()


async def test_a_folder_that_was_taken_away_is_made_again(tmp_path: Path):
    store = open_objects(Settings(data_dir=str(tmp_path)))
    for _ in range(2):
        source = tmp_path / "source"
        source.write_bytes(b"x")
        await store.put(KEY, source, "text/plain")
        (path := tmp_path / "objects" / KEY).unlink()
        path.parent.rmdir()
    await store.close()


async def test_of_files_that_come_together_one_that_is_gone_spoils_no_other(tmp_path: Path):
    store = open_objects(Settings(data_dir=str(tmp_path)))
    sources = [tmp_path / str(number) for number in range(50)]
    keys = [upload_key(EPOCH, DAY, TASK, f"{number:08x}", "a") for number in range(50)]
    for source in sources[1:]:
        source.write_bytes(source.name.encode())

    outcomes = await asyncio.gather(
        *(store.put(key, source, "text/plain") for key, source in zip(keys, sources, strict=True)),
        return_exceptions=True,
    )

    assert isinstance(outcomes[0], ObjectStoreError)
    assert outcomes[1:] == [None] * 49
    assert sorted(await keys_of(store, day_prefix(EPOCH, DAY))) == keys[1:]
    assert await content_of(store, keys[49]) == b"49"
    await store.close()


async def test_a_folder_that_cannot_be_written_to_is_an_error_of_the_store(
    tmp_path: Path, source: Path
):
    (tmp_path / "objects").write_text("a file")
    store = open_objects(Settings(data_dir=str(tmp_path)))

    with pytest.raises(ObjectStoreError, match="objects"):
        await store.put(KEY, source, "text/plain")
    await store.close()


async def test_a_server_that_is_gone_is_an_error_of_the_store(
    s3: S3, source: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("ledger.objects.bucket.FIRST_PAUSE_S", 0)
    store = open_objects(Settings(object_store_url=s3.url))
    s3.stop()

    with pytest.raises(ObjectStoreError, match="s3://"):
        await store.put(KEY, source, "text/plain")
    s3.start()
    await store.put(KEY, source, "text/plain")
    assert await content_of(store, KEY) == CONTENT
    await store.close()


async def test_a_refusal_is_told_with_the_stores_own_words(
    s3: S3, source: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    store = open_objects(Settings(object_store_url=s3.url))

    with pytest.raises(ObjectStoreError, match=r"answered 403 to a PUT: .*SignatureDoesNotMatch"):
        await store.put(KEY, source, "text/plain")
    assert s3.files() == []
    await store.close()


def test_no_file_goes_unencrypted_to_another_machine(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://192.0.2.1:9000")

    with pytest.raises(SettingsError, match="unencrypted"):
        open_objects(Settings(object_store_url="s3://bucket"))


def test_a_folder_needs_neither_obstore_nor_aiohttp_to_be_put_into():
    """Every API process would pay for them."""
    found = (
        "import sys; from ledger.objects import open_objects; from ledger.settings import Settings;"
        "open_objects(Settings()); sys.exit(bool({'obstore', 'aiohttp'} & set(sys.modules)))"
    )

    assert subprocess.run([sys.executable, "-c", found], check=False).returncode == 0
