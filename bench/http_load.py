"""Load on a REST endpoint: `wrk` where it is installed, else connections of our own in Python."""

import asyncio
import re
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

import msgspec

CONNECTIONS: Final = 50

WRK: Final = shutil.which("wrk")


class Request(msgspec.Struct, frozen=True):
    """What is asked again and again. An empty body makes it a GET."""

    url: str
    body: bytes = b""

    def as_bytes(self) -> bytes:
        """HTTP/1.1, keep-alive."""
        parts = urlsplit(self.url)
        method, path = "POST" if self.body else "GET", parts.path or "/"
        head = f"{method} {path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        if self.body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(self.body)}\r\n"
        return f"{head}\r\n".encode() + self.body


async def requests_per_s(request: Request, seconds: int) -> float:
    """Answers per second with 50 connections. Raises RuntimeError when one is not a success."""
    if WRK is None:
        return await _with_connections(request, seconds)
    with tempfile.NamedTemporaryFile("wb", suffix=".lua") as script:
        if request.body:
            script.write(b'wrk.method = "POST"\nwrk.body = [==[%s]==]\n' % request.body)
            script.write(b'wrk.headers["Content-Type"] = "application/json"\n')
        script.flush()
        return await _with_wrk(WRK, request.url, seconds, Path(script.name))


async def _with_wrk(wrk: str, url: str, seconds: int, script: Path) -> float:
    arguments = ("-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(script), url)
    process = await asyncio.create_subprocess_exec(
        wrk, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output = (await process.communicate())[0].decode()
    rate = re.search(r"^Requests/sec:\s*([\d.]+)", output, re.MULTILINE)
    if process.returncode or rate is None or "Non-2xx" in output or "Socket errors" in output:
        raise RuntimeError(f"wrk on {url}:\n{output}")
    return float(rate[1])


async def _with_connections(request: Request, seconds: int) -> float:
    connections = [await Connection.open(request.url) for _ in range(CONNECTIONS)]
    message = request.as_bytes()
    began = time.perf_counter()
    counts = await asyncio.gather(*(_ask_until(c, message, began + seconds) for c in connections))
    took_s = time.perf_counter() - began
    await close_all(connections)
    return sum(counts) / took_s


async def _ask_until(connection: "Connection", message: bytes, deadline: float) -> int:
    answers = 0
    while time.perf_counter() < deadline:
        await connection.ask(message)
        answers += 1
    return answers


class Connection:
    """A keep-alive connection, as thin as Python's streams allow."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, url: str) -> Self:
        parts = urlsplit(url)
        return cls(*await asyncio.open_connection(parts.hostname, parts.port))

    async def ask(self, message: bytes) -> bytes:
        """The answer's body. Raises RuntimeError when it is not a success."""
        self._writer.write(message)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        body = await self._reader.readexactly(int(length[1]) if length else 0)
        if head[9:10] != b"2":
            raise RuntimeError(f"not a success: {(head + body)[:500]!r}")
        return body

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


async def close_all(connections: Sequence[Connection]) -> None:
    for connection in connections:
        await connection.close()
