"""A relay in front of a server that fails on demand: the faults between a client and its ledger."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable

Hook = Callable[[], Awaitable[None]]
CHUNK_BYTES = 1 << 16


async def _nothing() -> None:
    return


class Proxy:
    """Forwards bytes between clients at `url` and the server; see `run_proxy`.

    A fault strikes one message: the next request (or the reply to the next request) that contains
    `marker`. `struck` is set when it has.
    """

    def __init__(self, path: str, server_path: str) -> None:
        self.url = f"unix://{path}"
        self.struck = asyncio.Event()
        self.refused = asyncio.Event()
        self._server_path = server_path
        self._refusing = False
        self._links: set[asyncio.Task[None]] = set()
        self._request_marker: bytes | None = None
        self._reply_marker: bytes | None = None
        self._before_cut: Hook = _nothing
        self._held: asyncio.Event | None = None

    def cut_reply(self, marker: bytes, meanwhile: Hook = _nothing) -> None:
        """Let the request through, wait for its reply, drop that, run `meanwhile`, cut the line:
        the client cannot know that it was carried out."""
        self._reply_marker, self._before_cut = marker, meanwhile
        self.struck.clear()

    def cut_request(self, marker: bytes, meanwhile: Hook = _nothing) -> None:
        """Drop the request, run `meanwhile`, cut the line: nothing was carried out."""
        self._request_marker, self._before_cut = marker, meanwhile
        self.struck.clear()

    def hold(self) -> None:
        """Keep all replies back until `let_go`."""
        self._held = asyncio.Event()

    def let_go(self) -> None:
        if self._held is not None:
            self._held.set()
        self._held = None

    async def refuse(self) -> None:
        """Cut every line, and take no new ones until `accept`; `refused` tells that one came."""
        self._refusing = True
        self.refused.clear()
        await self.cut()

    def accept(self) -> None:
        self._refusing = False

    async def cut(self) -> None:
        """Cut every line there is."""
        links = list(self._links)
        for link in links:
            link.cancel()
        await asyncio.gather(*links, return_exceptions=True)

    async def link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client; called by the listening socket."""
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        try:
            if self._refusing:
                self.refused.set()
            else:
                await self._forward(reader, writer)
        except asyncio.CancelledError:
            return  # `cut`; the socket's own callback must not see it
        finally:
            self._links.discard(task)
            writer.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_unix_connection(self._server_path)
        doomed = asyncio.Event()
        pumps = [
            asyncio.create_task(self._requests(reader, to_server, doomed)),
            asyncio.create_task(self._replies(from_server, writer, doomed)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            to_server.close()  # at once: `cut` may interrupt whatever is awaited here
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, doomed: asyncio.Event
    ) -> None:
        while data := await reader.read(CHUNK_BYTES):
            if self._request_marker is not None and self._request_marker in data:
                self._request_marker = None
                return await self._strike()
            if self._reply_marker is not None and self._reply_marker in data:
                self._reply_marker = None
                doomed.set()
            writer.write(data)
            await writer.drain()

    async def _replies(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, doomed: asyncio.Event
    ) -> None:
        while data := await reader.read(CHUNK_BYTES):
            # EVALSHA of an unknown script is not carried out; the EVAL that follows it is.
            if doomed.is_set() and not data.startswith(b"-NOSCRIPT"):
                return await self._strike()
            if self._held is not None:
                await self._held.wait()
            writer.write(data)
            await writer.drain()

    async def _strike(self) -> None:
        meanwhile, self._before_cut = self._before_cut, _nothing
        await meanwhile()
        self.struck.set()


@contextlib.asynccontextmanager
async def run_proxy(server_url: str) -> AsyncGenerator[Proxy]:
    """A proxy in front of the server at `server_url` (unix://)."""
    with tempfile.TemporaryDirectory(prefix="lq-") as folder:
        proxy = Proxy(f"{folder}/p", server_url.removeprefix("unix://"))
        server = await asyncio.start_unix_server(proxy.link, f"{folder}/p")
        try:
            yield proxy
        finally:
            server.close()
            await proxy.cut()
            await server.wait_closed()
