"""Clients in several processes, and in several event loops."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator

import pytest

from api.client import AsyncClient
from tests.api.conftest import Service

FORKED = """
import os, sys
from api.client import Client, TaskNotFound

client = Client(sys.argv[1])

def ask():
    try:
        client.get("01900000-0000-7000-8000-000000000000")
    except TaskNotFound:
        pass

ask()
child = os.fork()
ask()
if child:
    sys.exit(os.waitpid(child, 0)[1])
"""
TWICE = """
import asyncio, contextlib, sys
from api.client import AsyncClient

client = AsyncClient(sys.argv[1])

async def submit_and_follow(number):
    print((await client.submit("health_check", f"kb-{number}")).kb_id)
    async with contextlib.aclosing(client.follow(after="beginning")) as updates:
        print((await anext(updates)).kb_id)

for number in range(2):
    asyncio.run(submit_and_follow(number))
"""
BODY = b'{"message": "there is none", "code": "TASK_NOT_FOUND"}'
ANSWER = b"HTTP/1.1 404 Not Found\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)


@pytest.fixture
async def askers() -> AsyncIterator[tuple[str, list[int]]]:
    """A service that knows no task, and how many requests came on each connection to it."""
    requests: list[int] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(requests)
        requests.append(0)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                requests[number] += 1
                writer.write(ANSWER)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", requests


async def test_a_forked_process_has_connections_of_its_own(askers: tuple[str, list[int]]) -> None:
    url, requests = askers

    await _run(FORKED, url)

    assert sorted(requests) == [1, 2]


async def test_a_client_goes_on_in_the_loop_that_follows(service: Service) -> None:
    printed = await _run(TWICE, f"http://127.0.0.1:{service.port}")

    assert printed.split() == ["kb-0", "kb-0", "kb-1", "kb-0"]


async def test_a_client_of_two_loops_at_once_is_refused(service: Service) -> None:
    async with AsyncClient(f"http://127.0.0.1:{service.port}") as client:
        await client.submit("health_check", "kb-1")

        with pytest.raises(RuntimeError, match="another event loop"):
            await asyncio.to_thread(lambda: asyncio.run(client.submit("health_check", "kb-1")))


async def _run(program: str, url: str) -> str:
    """What a program prints that ends well."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, url), stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 0
    return printed.decode()
