"""Handlers open uploaded files, wherever those lie."""

import asyncio
import os
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Final

import pytest

from consumers import NoSuchFile, PermanentError, open_file, stream_file
from ledger.objects import open_objects, upload_key
from ledger.settings import Settings
from tests.object_stores import run_s3

KEY: Final = upload_key(
    "5eed1234", date(2026, 11, 25), "0193b9e0-5c31-7cc4-9f6e-3f0d3f0e7a11", "0123abcd", "report.pdf"
)
CONTENT: Final = os.urandom(600_000)


@pytest.fixture(params=["folder", "s3"])
def in_store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """KEY is in the store that this process's environment names."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    settings = Settings(data_dir=str(tmp_path / "data"))
    monkeypatch.setenv("LEDGERQ_DATA_DIR", settings.data_dir)
    source = tmp_path / "source"
    source.write_bytes(CONTENT)
    if request.param == "folder":
        asyncio.run(open_objects(settings).put(KEY, source, "application/pdf"))
        yield
        return
    (tmp_path / "s3").mkdir()
    with run_s3(tmp_path / "s3") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("LEDGERQ_OBJECT_STORE_URL", server.url)
        asyncio.run(_put(Settings(object_store_url=server.url), source))
        yield


async def _put(settings: Settings, source: Path) -> None:
    store = open_objects(settings)
    await store.put(KEY, source, "application/pdf")
    await store.close()


@pytest.mark.usefixtures("in_store")
def test_a_file_is_read_and_sought_in():
    with open_file(KEY) as file:
        assert file.read() == CONTENT
        file.seek(-10, os.SEEK_END)
        assert file.read() == CONTENT[-10:]


@pytest.mark.usefixtures("in_store")
def test_its_name_is_a_path_for_programs_that_want_one():
    with open_file(KEY) as file:
        assert Path(file.name).read_bytes() == CONTENT
        assert file.name.endswith("report.pdf")


@pytest.mark.usefixtures("in_store")
def test_a_coroutine_opens_it_without_blocking_its_loop():
    async def read() -> bytes:
        async with open_file(KEY) as file:
            return file.read()

    assert asyncio.run(read()) == CONTENT


@pytest.mark.usefixtures("in_store")
def test_its_bytes_are_streamed():
    async def read() -> list[bytes]:
        return [piece async for piece in stream_file(KEY)]

    pieces = asyncio.run(read())

    assert b"".join(pieces) == CONTENT
    assert len(pieces) > 1


@pytest.mark.usefixtures("in_store")
def test_a_file_that_is_not_there_is_not_worth_another_attempt():
    missing = KEY.replace("report", "another")

    with pytest.raises(NoSuchFile, match="another"), open_file(missing):
        pass
    assert issubclass(NoSuchFile, PermanentError)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "uploads/../../etc/passwd",
        f"{KEY}/../../../../etc/passwd",
        "file:///etc/passwd",
        "s3://another/bucket",
        KEY + "\n",
    ],
)
def test_a_payload_leads_to_uploads_and_nowhere_else(path: str):
    with pytest.raises(NoSuchFile, match="not the file_path of an upload"):
        open_file(path)
