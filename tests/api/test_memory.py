"""An API process keeps nothing of the requests that it has answered."""

import asyncio
import json

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from api.exchange import Exchange
from api.task_facts import TaskFacts
from api.wire import moment_text
from ledger.redis_store import RedisStore
from ledger.store import Position
from tests.api.conftest import Service
from tests.api.requests import TASKS, body
from tests.contracts.store import submit
from tests.remains import BYTES_A_ROUND_MAX, bytes_a_round, cyclic_garbage

AT_HAND = 50
REQUESTS_A_CALL = 3
PATIENCE_S = 60


def request(method: str, path: str, content: bytes = b"") -> bytes:
    """HTTP/1.1 on a connection that stays."""
    head = f"{method} {path} HTTP/1.1\r\nhost: api\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(content)}\r\n\r\n".encode() + content


class Caller:
    """Submits tasks one by one, asks for each, and asks for one that is not there."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._submission = request("POST", TASKS, json.dumps(body()).encode())

    async def call(self, count: int) -> None:
        """So many times."""
        async with asyncio.timeout(PATIENCE_S):
            for _ in range(count):
                task = json.loads(await self._ask(self._submission))
                await self._ask(request("GET", f"{TASKS}/{task['id']}"))
                await self._ask(request("GET", f"{TASKS}/none"))

    async def _ask(self, sent: bytes) -> bytes:
        self._writer.write(sent)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        return await self._reader.readexactly(int(length))

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


async def test_a_request_that_was_answered_is_freed_without_looking_for_cycles(service: Service):
    caller = Caller(*await asyncio.open_connection("127.0.0.1", service.port))
    await caller.call(2)

    with cyclic_garbage() as garbage:
        await caller.call(20)

    await caller.close()
    kept = [found for found in garbage if isinstance(found, Exchange | RequestResponseCycle)]
    assert kept == []


async def test_an_api_does_not_grow_with_the_requests_that_it_answers(service: Service):
    caller = Caller(*await asyncio.open_connection("127.0.0.1", service.port))

    async def call(count: int) -> None:
        await caller.call(count)
        moment_text.cache_clear()  # it has a bound, which would take thousands of tasks to reach

    grown = await bytes_a_round(call, warm_up=100, rounds=200)

    await caller.close()
    assert grown / REQUESTS_A_CALL < BYTES_A_ROUND_MAX


async def test_the_live_feed_remembers_a_bounded_number_of_tasks(store: RedisStore):
    facts = TaskFacts(store, AT_HAND)
    position = Position(0, "0-0")

    async def tell(count: int) -> None:
        nonlocal position
        for _ in range(count // AT_HAND):
            await asyncio.gather(*(submit(store) for _ in range(AT_HAND)))
            told = await facts.occurrences(await store.events_after(position, AT_HAND, 1_000))
            position = told[-1].position

    assert await bytes_a_round(tell, warm_up=4 * AT_HAND, rounds=8 * AT_HAND) < BYTES_A_ROUND_MAX
