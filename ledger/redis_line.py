"""One connection for what a process asks of the server most: many calls share it.

What is asked in one turn of the event loop leaves in one write, whatever is still to be answered:
the server answers in the order it was asked. A connection of its own for each call, as redis-py
has it, costs a process half as much again for a single call, and three times as much for each of
many.
"""

import asyncio
import contextlib
import copy
from collections import deque
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from ledger.redis_connection import (
    distrust,
    give_up,
    is_fault,
    packed,
    plain_fault,
    pool_of,
    usable,
)
from ledger.script_format import Argument

Answer = asyncio.Future[Any]


def line_of(client: Redis) -> "Line":
    """The one of a client that `connect` made."""
    pool = pool_of(client)
    if pool.line is None:
        pool.line = Line(client)
    return pool.line


class Line:
    """Belongs to one event loop. What waits to be sent has no bound here: whoever asks has one."""

    def __init__(self, client: Redis) -> None:
        """A command that is not answered within the client's time-out, once it was sent, fails, and
        with it all that were sent after it."""
        self._client = client
        self._timeout_s: float = pool_of(client).connection_kwargs["socket_timeout"]
        self._connection: Any = None
        self._unsent: list[tuple[bytes, Answer]] = []
        self._sent: deque[tuple[float, Answer]] = deque()
        """When each was sent, and who waits for the reply; the next reply is for the first."""
        self._running: asyncio.Task[None] | None = None
        """While there is something to send or to read."""

    def ask(self, arguments: Sequence[Argument]) -> Answer:
        """The reply to a command, as the server gave it. Cancelling it recalls the command only as
        long as it was not sent.

        It fails with RedisError or ServerRefused.
        """
        loop = asyncio.get_running_loop()
        answer: Answer = loop.create_future()
        self._unsent.append((packed(arguments), answer))
        if self._running is None:
            self._begin()
        elif self._sent and len(self._unsent) == 1:
            loop.call_soon(self._write_beside)
        return answer

    def _begin(self) -> None:
        self._running = asyncio.get_running_loop().create_task(self._run())
        self._running.add_done_callback(self._ended)

    async def _run(self) -> None:
        while self._unsent:
            try:
                await self._serve()
            except Exception as error:
                await self._fail(plain_fault(error))

    def _ended(self, _running: asyncio.Task[None]) -> None:
        self._running = None
        if self._sent:
            # Cancelled, as the event loop does in the end: the replies to come are for nobody.
            if self._connection is not None:
                self._connection.mark_for_reconnect()
            for _, answer in self._sent:
                answer.cancel()
            self._sent.clear()
        if self._unsent:
            self._begin()

    async def _serve(self) -> None:
        """Until there is nothing to send."""
        while self._unsent:
            held, self._connection = self._connection, None
            self._connection = await usable(self._client, held)
            self._write()
            while self._sent:
                await self._read_in_time()

    def _write_beside(self) -> None:
        """While replies are read: unless the connection is not to be used again. It is read to its
        end then, and another one takes its place."""
        connection = self._connection
        if connection is not None and connection.is_connected and not connection.is_worn():
            self._write()

    def _write(self) -> None:
        unsent = [(command, answer) for command, answer in self._unsent if not answer.done()]
        self._unsent.clear()
        if not unsent:
            return
        now_s = asyncio.get_running_loop().time()
        self._sent.extend([(now_s, answer) for _, answer in unsent])
        # If it is closed, whoever reads it is told as well, and tells all who wait.
        with contextlib.suppress(OSError, RuntimeError):
            self._connection.write([command for command, _ in unsent])

    async def _read_in_time(self) -> None:
        """Replies, until all are there, or for as long as the first of them may take: a time limit
        for each would cost more than the reading."""
        try:
            async with asyncio.timeout_at(self._sent[0][0] + self._timeout_s):
                while self._sent:
                    await self._read()
        except TimeoutError:
            overdue_s = asyncio.get_running_loop().time() - self._timeout_s
            if self._sent and self._sent[0][0] <= overdue_s:
                raise RedisTimeoutError(f"no reply in {self._timeout_s:g} s") from None

    async def _read(self) -> None:
        """One reply."""
        reply = await self._connection.read_reply()
        _, answer = self._sent.popleft()
        is_refusal = isinstance(reply, ResponseError)
        if is_refusal and is_fault(reply):
            distrust(self._client)
        if answer.done():
            return
        if is_refusal:
            answer.set_exception(reply)
        else:
            answer.set_result(reply)

    async def _fail(self, error: Exception) -> None:
        """Tell all who wait for a reply; what was not sent yet is sent on another connection. Where
        none was to be had, tell all."""
        if isinstance(error, RedisError) and is_fault(error):
            distrust(self._client)
        waiting = [answer for _, answer in self._sent or self._unsent if not answer.done()]
        if not self._sent:
            self._unsent.clear()
        self._sent.clear()
        for answer in waiting:
            # One for each: a shared one would gather all their tracebacks.
            own = copy.copy(error)
            own.__cause__ = error.__cause__
            answer.set_exception(own)
        connection, self._connection = self._connection, None
        if connection is not None:
            await give_up(self._client, connection)
