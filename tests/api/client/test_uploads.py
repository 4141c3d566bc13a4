"""Files, from paths, streams and memory."""

import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

import pytest

from api.client import AsyncClient, File, InvalidRequest
from api.client.uploads import form_of
from ledger.redis_store import RedisStore
from tests.checks import check_ledger
from tests.faults.proxy import Proxy

CONTENT = b"text " * 50_000


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "ü report.txt"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def pipe() -> Iterator[IO[bytes]]:
    """A stream that has no beginning to go back to."""
    read_end, write_end = os.pipe()
    os.write(write_end, b"from a pipe")
    os.close(write_end)
    with open(read_end, "rb") as pipe:
        yield pipe


async def test_a_file_becomes_a_task(client: AsyncClient, document: Path) -> None:
    uploaded = await client.upload(document, "kb-1", payload={"language": "de"}, priority="high")

    task = await client.get(uploaded.task_id)
    assert (task.task_type, task.priority) == ("document_processing", "high")
    assert task.payload["language"] == "de"
    assert task.payload["filename"] == "ü report.txt"
    assert task.payload["size"] == len(CONTENT)
    assert uploaded.files[0].sha256 == hashlib.sha256(CONTENT).hexdigest()


async def test_several_files_keep_their_order(client: AsyncClient, document: Path) -> None:
    files = [
        str(document),
        io.BytesIO(b"a stream"),
        File("b.md", b"# in memory", "text/markdown"),
        File("c.txt", document),
    ]

    uploaded = await client.upload(files, "kb-1", task_type="knowledge_indexing")

    assert [f.filename for f in uploaded.files] == ["ü report.txt", "upload", "b.md", "c.txt"]
    assert uploaded.files[2].content_type == "text/markdown"
    assert list(uploaded.task_ids) == [f.task_id for f in uploaded.files]


async def test_an_upload_whose_answer_is_lost_makes_its_tasks_once(
    far_client: AsyncClient, proxy: Proxy, store: RedisStore, document: Path
) -> None:
    proxy.cut_reply(b"POST /api/v1/upload")

    uploaded = await far_client.upload([document, io.BytesIO(b"a stream")], "kb-1")

    assert proxy.struck.is_set()
    assert set((await check_ledger(store)).tasks) == set(uploaded.task_ids)


async def test_a_pipe_is_sent_as_it_flows(client: AsyncClient, pipe: IO[bytes]) -> None:
    uploaded = await client.upload(File("p.txt", pipe), "kb-1")

    assert uploaded.files[0].size == len(b"from a pipe")


class Changing(io.BytesIO):
    """A file that somebody else changes while it is read."""

    def __init__(self, change: bytes | int) -> None:
        super().__init__(CONTENT)
        self._change = change

    def read(self, size: int | None = -1) -> bytes:
        at = self.tell()
        if isinstance(self._change, int):
            self.truncate(self._change)
        elif at == 0:
            self.seek(0, io.SEEK_END)
            self.write(self._change)
            self.seek(0)
        return super().read(size)


async def test_a_file_that_grows_meanwhile_is_sent_as_it_was(client: AsyncClient) -> None:
    uploaded = await client.upload(File("a.log", Changing(b"a line more")), "kb-1")

    assert uploaded.files[0].sha256 == hashlib.sha256(CONTENT).hexdigest()


async def test_a_file_that_shrinks_meanwhile_is_said_so(client: AsyncClient) -> None:
    with pytest.raises(ValueError, match="became shorter while it was sent: 249000 bytes missing"):
        await client.upload(File("a.log", Changing(1_000)), "kb-1")

    assert (await client.submit("health_check", "kb-1")).status == "queued"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="there is no /proc here")
async def test_a_file_that_does_not_tell_its_size_is_sent_as_it_flows(client: AsyncClient) -> None:
    uploaded = await client.upload("/proc/self/status", "kb-1")

    assert uploaded.files[0].size > 0


async def test_a_file_that_is_not_there_is_said_so(client: AsyncClient, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await client.upload(tmp_path / "none.txt", "kb-1")


async def test_a_folder_is_no_file(client: AsyncClient) -> None:
    with pytest.raises(IsADirectoryError):
        await client.upload(Path(), "kb-1")


async def test_no_file_is_no_upload(client: AsyncClient) -> None:
    with pytest.raises(ValueError, match="at least one file"):
        await client.upload([], "kb-1")


async def test_what_the_service_refuses_names_the_field(
    client: AsyncClient, document: Path
) -> None:
    with pytest.raises(InvalidRequest) as raised:
        await client.upload(document, "kb-1", task_type="no_such_type")

    assert raised.value.details["field"] == "task_type"


@pytest.mark.parametrize(
    "name",
    [
        '"a" and "b".txt',
        "a\r\nb",
        "a%20b%2F",
        " a ",
        "a;b=c",
        "'",
        "\x85",
        "\u2028",
        "x" * 255,
        "é",
    ],
)
async def test_a_name_arrives_as_it_is(client: AsyncClient, name: str) -> None:
    uploaded = await client.upload(File(name, b"x"), "kb-1")

    assert uploaded.files[0].filename == name


@pytest.mark.parametrize(
    "name", ["a\\b", "a\\", "a\tb", "\0", "\x7f", "a%22b", "a%0Ab", "\udcff", ""]
)
def test_a_name_that_would_arrive_as_another_one_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="expected a file name, without backslashes") as refused:
        form_of([File("a", b""), File(name, b"")], "kb-1", None, None, {})

    assert str(refused.value).startswith(repr(name))


def test_a_file_that_is_called_so_may_be_given_another_name(tmp_path: Path) -> None:
    path = tmp_path / "a\\b.txt"
    path.write_bytes(b"")

    with pytest.raises(ValueError, match="gives it another one"):
        form_of(path, "kb-1", None, None, {})
    assert form_of(File("b.txt", path), "kb-1", None, None, {}).files[0].name == "b.txt"


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (b"text", "a path, a binary stream or a File(name, content), got bytes"),
        ([b"text"], "a path, a binary stream or a File(name, content), got bytes"),
        (7, "a path, a binary stream or a File(name, content), got int"),
        (
            File("a.txt", cast("Any", "text")),
            "bytes, a binary stream or a Path as the content of a File, got str",
        ),
        (File(cast("Any", Path("a")), b""), "a text as the name of a File, got PosixPath"),
    ],
)
async def test_what_is_no_file_is_told_by_what_would_be_one(
    client: AsyncClient, source: Any, told: str
) -> None:
    with pytest.raises(TypeError) as refused:
        await client.upload(source, "kb-1")

    assert str(refused.value) == f"expected {told}"
