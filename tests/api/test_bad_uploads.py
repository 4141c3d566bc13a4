"""Uploads that are broken, too large or refused: a clear error, no object, no task."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest

from api import submissions
from api.app import App
from ledger.keys import LEDGER
from ledger.objects import ObjectStoreError
from ledger.redis_connection import send
from ledger.redis_store import RedisStore
from ledger.settings import Settings
from tests.api.conftest import Service
from tests.api.requests import TASKS, state_of, submitted
from tests.api.uploading import (
    BOUNDARY,
    FORM,
    KB,
    UPLOAD,
    Part,
    field,
    file,
    files_in,
    form,
    payload_of,
    upload,
)

FILE_BYTES_MAX: Final = 1_000_000
LONG_S: Final = 3_600.0


@pytest.fixture(autouse=True)
def one_look_at_the_queue(monkeypatch: pytest.MonkeyPatch):
    """What was seen of a queue is believed for as long as a test takes."""
    monkeypatch.setattr(submissions, "ROOM_FRESH_S", LONG_S)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        data_dir=str(tmp_path),
        upload_file_bytes_max=FILE_BYTES_MAX,
        upload_body_bytes_max=4 * FILE_BYTES_MAX,
        upload_files_max=3,
        queue_tasks_max=3,
        uploads_max=2,
    )


@pytest.fixture
async def nothing_left(store: RedisStore, settings: Settings) -> AsyncIterator[None]:
    """Afterwards there is neither an object nor a task."""
    before = await state_of(store)
    yield
    assert files_in(settings) == []
    assert await state_of(store) == before


def refused(answer: httpx2.Response, status: int, name: str) -> dict[str, Any]:
    """The error, which names the field."""
    assert answer.status_code == status, answer.text
    error = answer.json()
    assert set(error) == {"error", "message", "code", "details"}
    assert error["details"].get("field") == name, error
    return error


FIELDS: Final[dict[str, tuple[tuple[Part, ...], str]]] = {
    "no kb_id": ((file(),), "kb_id"),
    "an empty kb_id": ((field("kb_id", ""), file()), "kb_id"),
    "an empty kb_id, after the file": ((file(), field("kb_id", "")), "kb_id"),
    "no file": ((KB,), "file"),
    "no parts that count": ((KB, file(b"", "")), "file"),
    "a file without a name": ((KB, file(b"x", "")), "file"),
    "an empty file": ((KB, file(b"")), "file"),
    "an unknown type": ((KB, field("task_type", "nope"), file()), "task_type"),
    "an unknown priority": ((KB, field("priority", "urgent"), file()), "priority"),
    "a payload that is no JSON": ((KB, field("payload", "{"), file()), "payload"),
    "a payload that is no object": ((KB, field("payload", "[1]"), file()), "payload"),
    "a payload that says what is filled in": (
        (KB, field("payload", '{"size": 1}'), file()),
        "payload",
    ),
    "metadata that is no object": ((KB, field("metadata", "1"), file()), "metadata"),
    "a number that is none": ((KB, field("max_retries", "many"), file()), "max_retries"),
    "a number out of bounds": ((KB, field("timeout", "0"), file()), "timeout"),
    "no time": ((KB, field("schedule_for", "tomorrow"), file()), "schedule_for"),
    "a host that may not be called": (
        (KB, field("callback_url", "http://example.org/"), file()),
        "callback_url",
    ),
    "an unknown field": ((KB, field("colour", "red"), file()), "colour"),
    "a field twice": ((KB, KB, file()), "kb_id"),
    "a field that is a file": ((KB, file(b"kb-1", "a", "kb_id")), "kb_id"),
    "a field that is not UTF-8": ((('name="kb_id"', b"\xff"), file()), "kb_id"),
    "an encoded part": (
        (
            KB,
            ('name="file"; filename="a"\r\ncontent-transfer-encoding: base64', b"aGk="),
        ),
        "file",
    ),
    "a name that is too long": ((KB, file(b"x", "a" * 1_025)), "file"),
}


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("case", FIELDS)
async def test_the_error_names_the_field(api: httpx2.AsyncClient, case: str):
    parts, name = FIELDS[case]

    answer = await upload(api, *parts)

    assert refused(answer, 400, name)["code"] == "INVALID_REQUEST"


def _without(body: bytes, taken: bytes, put: bytes = b"") -> bytes:
    assert taken in body
    return body.replace(taken, put)


GOOD: Final = form(KB, file(b"x" * 1_000))
BROKEN: Final = {
    "nothing": b"",
    "no multipart": b"hello",
    "another boundary": form(KB, file(), boundary="another"),
    "another boundary, and much of it": form(KB, file(b"x" * 200_000), boundary="another"),
    "no end": _without(GOOD, b"--\r\n"),
    "cut off in the file": GOOD[:-200],
    "cut off in a head": GOOD[:30],
    "bare line feeds": GOOD.replace(b"\r\n", b"\n"),
    "no disposition": _without(GOOD, b"content-disposition", b"x-disposition"),
    "another disposition": _without(GOOD, b"form-data; ", b"attachment; "),
    "a head that is none": _without(GOOD, b"content-disposition:", b"content-disposition"),
    "a name that is not UTF-8": _without(GOOD, b"a.txt", b"\xff\xfe.txt"),
}


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("case", BROKEN)
async def test_a_broken_body_is_said_to_be_one(api: httpx2.AsyncClient, case: str):
    answer = await api.post(UPLOAD, content=BROKEN[case], headers=FORM)

    assert "multipart/form-data" in refused(answer, 400, "body")["message"]


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        (None, 415),
        ("application/json", 415),
        ("multipart/mixed; boundary=x", 415),
        ("multipart/form-data", 400),
        ("multipart/form-data; boundary=", 400),
        (f"multipart/form-data; boundary={'x' * 71}", 400),
        ('multipart/form-data; boundary="a\tb"', 400),
    ],
)
async def test_another_kind_of_body_is_refused(
    api: httpx2.AsyncClient, content_type: str | None, status: int
):
    headers = {} if content_type is None else {"content-type": content_type}

    answer = await api.post(UPLOAD, content=GOOD, headers=headers)

    refused(answer, status, "Content-Type")


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize(
    ("parts", "name"),
    [
        ((KB, file(b"x" * (FILE_BYTES_MAX + 1))), "file"),
        ((KB, *[file()] * 4), "body"),
        ([file(name=f"f{i}") for i in range(10_000)], "body"),
        ((KB, ('name="file"; filename="' + "a" * 5_000 + '"', b"x")), "body"),
        ((KB, ('name="file"; filename="a"' + "\r\nx: y" * 9, b"x")), "body"),
        ((KB, *[file(b"x" * FILE_BYTES_MAX)] * 4), "body"),
        ((field("kb_id", "x" * 100_000), file()), "kb_id"),
        ((KB, field("payload", json.dumps({"a": "x" * 2_000_000})), file()), "payload"),
    ],
    ids=["file", "files", "parts", "head", "heads", "body", "field", "payload"],
)
async def test_what_is_too_large_or_too_many_is_413(
    api: httpx2.AsyncClient, parts: tuple[Part, ...], name: str
):
    answer = await upload(api, *parts)

    assert refused(answer, 413, name)["code"] == "PAYLOAD_TOO_LARGE"


PATHS: Final = {
    "../../etc/passwd": "passwd",
    "/etc/passwd": "passwd",
    "..": "file",
    "C:\\\\dir\\\\a.txt": "a.txt",
    "a/b/../c.txt": "c.txt",
    ".hidden": "hidden",
    "a b;c&d.txt": "a_b_c_d.txt",
    "naïve.pdf": "na_ve.pdf",
    "a%00b": "a_00b",
    "x" * 300 + ".pdf": "x" * 96 + ".pdf",
    "-rf": "-rf",
}


@pytest.mark.parametrize("filename", PATHS)
async def test_a_name_is_told_as_it_was_sent_and_leads_nowhere(
    api: httpx2.AsyncClient, settings: Settings, filename: str
):
    answer = await upload(api, KB, file(b"x", filename))

    assert answer.status_code == 201, answer.text
    (stored,) = files_in(settings)
    payload = await payload_of(api, answer.json()["task_id"])
    assert stored.name.split("-", 6)[6] == PATHS[filename]
    assert str(stored).endswith(payload["file_path"])
    assert payload["filename"] == filename.replace("\\\\", "\\").removeprefix("C:\\dir\\")


@pytest.mark.usefixtures("nothing_left")
async def test_a_full_store_is_503(
    api: httpx2.AsyncClient, app: App, monkeypatch: pytest.MonkeyPatch
):
    async def full(*_: object) -> None:
        raise ObjectStoreError("no space left")

    monkeypatch.setattr(app.uploads.objects, "put", full)

    answer = await upload(api, KB, file(), file())

    assert answer.status_code == 503
    assert answer.json()["code"] == "SERVICE_UNAVAILABLE"


async def test_a_disk_that_takes_nothing_is_503(api: httpx2.AsyncClient, tmp_path: Path):
    (tmp_path / "objects").write_text("a file where a folder should be")

    answer = await upload(api, KB, file())

    assert answer.status_code == 503
    assert answer.json()["message"].startswith("files cannot be written down here")


async def test_a_full_queue_is_503_and_takes_no_object(
    api: httpx2.AsyncClient,
    app: App,
    store: RedisStore,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
):
    async def nothing_is_put(*_: object) -> None:
        raise AssertionError("the queue was known to be full")

    for _ in range(3):
        await submitted(api)
    before, files = await state_of(store), files_in(settings)

    monkeypatch.setattr(app.uploads.objects, "put", nothing_is_put)
    early = await upload(api, KB, file())
    late = await upload(api, file(), KB)

    assert [a.json()["code"] for a in (early, late)] == ["QUEUE_FULL"] * 2
    assert await state_of(store) == before
    assert files_in(settings) == files


async def test_a_queue_that_has_filled_up_since_it_was_looked_at_takes_no_object(
    api: httpx2.AsyncClient, store: RedisStore, settings: Settings
):
    await upload(api, KB, file())
    for _ in range(2):
        await submitted(api)
    before, files = await state_of(store), files_in(settings)

    answer = await upload(api, KB, file())

    assert answer.json()["code"] == "QUEUE_FULL"
    assert await state_of(store) == before
    assert files_in(settings) == files


async def test_a_queue_that_has_room_again_takes_an_upload_at_once(api: httpx2.AsyncClient):
    waiting = [await submitted(api) for _ in range(3)]
    refused = await upload(api, KB, file())
    await api.delete(f"{TASKS}/{waiting[0]['id']}")

    answer = await upload(api, KB, file())

    assert (refused.status_code, answer.status_code) == (503, 201)


async def test_a_server_whose_ledger_is_gone_is_503_and_takes_no_object(
    api: httpx2.AsyncClient, store: RedisStore, settings: Settings
):
    await send(store.client, ("DEL", LEDGER))

    answer = await upload(api, KB, file())

    assert answer.status_code == 503
    assert answer.json()["message"].startswith("the server has no ledger any more")
    assert files_in(settings) == []


async def test_what_has_no_room_beside_other_files_leaves_no_object(
    api: httpx2.AsyncClient, settings: Settings
):
    await upload(api, KB, file(), file())

    answer = await upload(api, KB, file(), file())

    assert answer.status_code == 503
    details = answer.json()["details"]
    assert (details["created"], details["submitted"], len(details["task_ids"])) == (1, 2, 1)
    assert len(files_in(settings)) == 3


# -- over a real connection -----------------------------------------------------------------------


@contextlib.asynccontextmanager
async def connected(service: Service) -> AsyncGenerator[tuple[Any, Any]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def head(*headers: str) -> bytes:
    lines = [f"POST {UPLOAD} HTTP/1.1", "host: x", f"content-type: {FORM['content-type']}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode()


@pytest.mark.usefixtures("nothing_left")
async def test_a_body_that_is_announced_too_large_is_refused_unread(service: Service):
    async with connected(service) as (reader, writer), asyncio.timeout(20):
        writer.write(head(f"content-length: {5 * 1024**3}"))

        answer = await reader.read()

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer


@pytest.mark.usefixtures("nothing_left")
async def test_a_body_that_turns_out_too_large_is_cut_off(service: Service):
    sent = 0
    async with connected(service) as (reader, writer), asyncio.timeout(20):
        writer.write(head("transfer-encoding: chunked"))
        first = form(KB, file(b"")).removesuffix(b"\r\n--%s--\r\n" % BOUNDARY.encode())
        writer.write(b"%x\r\n%s\r\n" % (len(first), first))
        # Read meanwhile: asyncio forgets what came before a reset.
        answering = asyncio.create_task(reader.read(65_536))
        piece = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
        with contextlib.suppress(ConnectionError):
            while sent < 5 * 1024**3:
                writer.write(piece)
                await writer.drain()
                sent += 65_536
        answer = await answering

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert sent < 64 * 1024 * 1024


@pytest.mark.usefixtures("nothing_left")
async def test_who_hangs_up_leaves_nothing(service: Service, settings: Settings):
    async with connected(service) as (_, writer), asyncio.timeout(20):
        writer.write(head("content-length: 900000") + form(KB, file(b"x" * 500_000))[:-20])
        while not files_in(settings):  # noqa: ASYNC110 - it is the server that works
            await asyncio.sleep(0.01)
    async with asyncio.timeout(20):
        while files_in(settings):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)


async def test_one_upload_too_many_is_503_until_another_is_done(
    store: RedisStore, service: Service, settings: Settings
):
    body = form(KB, file(b"x" * 1_000))
    begun = head(f"content-length: {len(body)}")
    async with contextlib.AsyncExitStack() as stack, asyncio.timeout(20):
        places = [await stack.enter_async_context(connected(service)) for _ in range(2)]
        for _, writer in places:
            writer.write(begun + body[:-1])
        while len(files_in(settings)) < 2:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)

        reader, writer = await stack.enter_async_context(connected(service))
        writer.write(begun + body)
        refused = await reader.readuntil(b"}}")
        places[0][1].write(body[-1:])
        assert (await places[0][0].readuntil(b"}]}")).startswith(b"HTTP/1.1 201 ")
        reader, writer = await stack.enter_async_context(connected(service))
        writer.write(begun + body)
        taken = await reader.readuntil(b"}]}")

    assert refused.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1" in refused
    assert taken.startswith(b"HTTP/1.1 201 ")


@pytest.mark.usefixtures("nothing_left")
async def test_an_upload_that_takes_too_long_is_given_up(
    service: Service, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("api.exchange.BODY_TIMEOUT_S", 0.2)
    async with connected(service) as (reader, writer), asyncio.timeout(20):
        writer.write(head("content-length: 1000") + form(KB, file())[:50])

        answer = await reader.readuntil(b"}}")

    assert answer.startswith(b"HTTP/1.1 408 ")
