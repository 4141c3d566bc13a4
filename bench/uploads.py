"""Uploads to an API process, beside the same bytes through the same parser to nowhere.

The floor is an endpoint on the same server, with the same reading of forms, that throws files away:
no disk, no digest, no task.

Files lie in the page cache until their memory is needed. A virtual machine that has just begun has
memory left that its host gives it page by page, as each is touched first, and that alone takes as
long as all the rest of an upload does; one that has been up for a while has not. So the pages of a
round are given back after it, and before the first one there is a round that does not count.
"""

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from bench.children import child
from bench.folders import new_folder
from bench.http_load import Connection, close_all
from bench.measure import Goal, Measured, percentile, plain_row, row
from bench.memory import resident_mb
from bench.roles import Options
from bench.scale import Scale
from bench.servers import run_server

if TYPE_CHECKING:
    from api.exchange import Exchange
    from api.multipart_form import FileHead

RATIO_GOAL: Final = Goal(ratio_min=0.5)
MEMORY_GOAL: Final = Goal(figure_max=64.0)
ANSWER_GOAL: Final = Goal(figure_max=50.0)
NOWHERE: Final = "the same bytes through the same server and parser to nowhere"

PATH: Final = "/api/v1/upload"
BOUNDARY: Final = b"a-boundary-of-the-bench"
FILE_BYTES: Final = 1024 * 1024
AT_ONCE: Final = 100
WARM_UP: Final = 3
LOOK_S: Final = 0.01


async def run(scale: Scale) -> Sequence[Measured]:
    """100 files at once in MB/s, what that takes of memory, and one file on an idle system."""
    folder = new_folder()
    async with (
        run_server("always") as server,
        child("api", Options(server.url, data_dir=str(folder))) as api,
        child("nowhere", Options()) as nowhere,
    ):
        for warmed in (nowhere, api):
            await answers_ms(warmed.url, WARM_UP)
        before_mb = resident_mb(api.pid)
        grown: list[float] = []
        pairs: list[tuple[float, float]] = []
        for _ in range(1 + scale.upload_rounds):
            below = await mb_per_s(nowhere.url)
            looking = asyncio.create_task(_most_resident_mb(api.pid))
            pairs.append((await mb_per_s(api.url), below))
            looking.cancel()
            grown.append(await looking - before_mb)
            give_pages_back(folder)
        took_ms = await answers_ms(api.url, scale.upload_answers)
        below_ms = await answers_ms(nowhere.url, scale.upload_answers)
    del pairs[0]
    title = f"upload of {AT_ONCE} files of 1 MiB at once"
    p99s = [(percentile(took_ms, 99), percentile(below_ms, 99))]
    return [
        row(f"{title}, each synced", "MB/s", pairs, floor_name=NOWHERE, goal=RATIO_GOAL),
        plain_row(f"{title}: the API grows by", "MB", [max(grown)], goal=MEMORY_GOAL),
        row(
            "answer to a file of 1 MiB, idle, p99", "ms", p99s, floor_name=NOWHERE, goal=ANSWER_GOAL
        ),
    ]


async def mb_per_s(url: str) -> float:
    """AT_ONCE uploads, each on a connection that is there already."""
    message = _message(url)
    connections = [await Connection.open(url) for _ in range(AT_ONCE)]
    began = time.perf_counter()
    await asyncio.gather(*(connection.ask(message) for connection in connections))
    took_s = time.perf_counter() - began
    await close_all(connections)
    return AT_ONCE * FILE_BYTES / 1e6 / took_s


async def answers_ms(url: str, count: int) -> list[float]:
    """How long each of `count` uploads took, one after the other."""
    message, took = _message(url), list[float]()
    connection = await Connection.open(url)
    for _ in range(count):
        began = time.perf_counter()
        await connection.ask(message)
        took.append((time.perf_counter() - began) * 1_000)
    await connection.close()
    return took


def give_pages_back(folder: Path) -> None:
    """Have the page cache forget what was uploaded, where the system can be told so."""
    if not hasattr(os, "posix_fadvise"):
        return
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


async def _most_resident_mb(pid: int) -> float:
    """Looks until it is cancelled."""
    most = 0.0
    try:
        while True:
            most = max(most, resident_mb(pid))
            await asyncio.sleep(LOOK_S)
    except asyncio.CancelledError:
        return most


def _message(url: str) -> bytes:
    parts = (b'name="kb_id"', b"bench"), (b'name="file"; filename="a.bin"', os.urandom(FILE_BYTES))
    body = b"".join(
        b"--%s\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n" % (BOUNDARY, head, content)
        for head, content in parts
    )
    body += b"--%s--\r\n" % BOUNDARY
    return (
        b"POST %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n"
        b"Content-Type: multipart/form-data; boundary=%s\r\n\r\n"
        % (PATH.encode(), urlsplit(url).netloc.encode(), len(body), BOUNDARY)
    ) + body


class Nowhere:
    """Where files go that nobody keeps."""

    def __init__(self) -> None:
        self.size = 0

    async def write(self, piece: bytes) -> None:
        self.size += len(piece)

    async def end(self) -> None:
        return


async def to_nowhere(exchange: "Exchange") -> None:
    """The endpoint of the floor."""
    from api.multipart_form import FormReader, boundary_of

    async def open_file(_head: "FileHead", _fields: Mapping[str, str]) -> Nowhere:
        return Nowhere()

    reader = FormReader(
        boundary_of(exchange.headers.get(b"content-type")),
        {"kb_id": 1_024},
        open_file,
        files_max=1,
        file_bytes_max=FILE_BYTES,
    )
    await reader.read(exchange.stream_body(2 * FILE_BYTES))
    await exchange.respond(201, b"{}")
