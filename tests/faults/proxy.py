"""A relay in front of a server that fails on demand: the faults between a client and its ledger."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable
from urllib.parse import urlsplit

import hiredis

Hook = Callable[[], Awaitable[None]]
CHUNK_BYTES = 1 << 16


async def _nothing() -> None:
    return


class Proxy:
    """Forwards bytes between clients at `url` and the server; see `run_proxy`.

    A fault strikes one message: the next request (or the reply to the next request) that contains
    `marker`. `struck` is set when it has. Other faults last until they are taken back.
    """

    def __init__(self, url: str, server_url: str) -> None:
        self.url = url
        self.struck = asyncio.Event()
        self.refused = asyncio.Event()
        self._server_url = server_url
        self._is_redis = not server_url.startswith("http:")
        self._silent = False
        self._told: bytes | None = None
        self._delay_s = 0.0
        self._bytes_per_s = float("inf")
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

    def move(self, server_url: str) -> None:
        """Lead whoever connects from now on to another server. The lines that there are stay."""
        self._server_url = server_url

    def tell(self, error: bytes | None) -> None:
        """Answer everything with an error such as b"LOADING ...", past the server, until None."""
        self._told = error

    def slow_down(self, delay_s: float = 0.0, bytes_per_s: float = float("inf")) -> None:
        """Deliver everything later, and slower; without arguments, as ever."""
        self._delay_s, self._bytes_per_s = delay_s, bytes_per_s

    def fall_silent(self) -> None:
        """Swallow whatever comes, from either side, and close nothing: half-open lines. Those that
        were so stay so."""
        self._silent = True

    def speak(self) -> None:
        """Serve the lines that are made from now on."""
        self._silent = False

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
        except OSError:
            return  # one of the two hung up, or there is no server
        except asyncio.CancelledError:
            return  # `cut`; the socket's own callback must not see it
        finally:
            self._links.discard(task)
            writer.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await self._connect()
        doomed, dead = asyncio.Event(), asyncio.Event()
        pumps = [
            asyncio.create_task(self._requests(reader, to_server, writer, doomed, dead)),
            asyncio.create_task(self._replies(from_server, writer, doomed, dead)),
        ]
        try:
            done, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            if dead.is_set() and pumps[0] not in done:
                await pumps[0]  # the server hung up, and the client does not hear of it
        finally:
            to_server.close()  # at once: `cut` may interrupt whatever is awaited here
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        address = urlsplit(self._server_url)
        if address.scheme == "unix":
            return await asyncio.open_unix_connection(address.path)
        return await asyncio.open_connection(address.hostname, address.port)

    async def _requests(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        to_client: asyncio.StreamWriter,
        doomed: asyncio.Event,
        dead: asyncio.Event,
    ) -> None:
        commands = hiredis.Reader()
        while data := await reader.read(CHUNK_BYTES):
            if self._is_dead(dead):
                continue
            if self._is_redis and self._tells(commands, data, to_client):
                continue
            if self._request_marker is not None and self._request_marker in data:
                self._request_marker = None
                return await self._strike()
            if self._reply_marker is not None and self._reply_marker in data:
                self._reply_marker = None
                doomed.set()
            await self._pass_on(writer, data)

    def _tells(
        self, commands: hiredis.Reader, data: bytes, to_client: asyncio.StreamWriter
    ) -> bool:
        """Answer each command in the data, if that is what is wanted."""
        commands.feed(data)
        count = 0
        while commands.gets() is not False:
            count += 1
        if self._told is None:
            return False
        to_client.write(b"-%b\r\n" % self._told * count)
        return True

    async def _replies(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        doomed: asyncio.Event,
        dead: asyncio.Event,
    ) -> None:
        while data := await reader.read(CHUNK_BYTES):
            if self._is_dead(dead):
                continue
            # EVALSHA of an unknown script is not carried out; the EVAL that follows it is.
            if doomed.is_set() and not data.startswith(b"-NOSCRIPT"):
                return await self._strike()
            if self._held is not None:
                await self._held.wait()
            await self._pass_on(writer, data)

    def _is_dead(self, dead: asyncio.Event) -> bool:
        if self._silent:
            dead.set()
        return dead.is_set()

    async def _pass_on(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        pause_s = self._delay_s + len(data) / self._bytes_per_s
        if pause_s:
            await asyncio.sleep(pause_s)
        writer.write(data)
        await writer.drain()

    async def _strike(self) -> None:
        meanwhile, self._before_cut = self._before_cut, _nothing
        await meanwhile()
        self.struck.set()


@contextlib.asynccontextmanager
async def run_proxy(server_url: str) -> AsyncGenerator[Proxy]:
    """A proxy in front of the server at `server_url` (unix:// or redis://), on a Unix socket."""
    with tempfile.TemporaryDirectory(prefix="lq-") as folder:
        proxy = Proxy(f"unix://{folder}/p", server_url)
        async with _serving(proxy, await asyncio.start_unix_server(proxy.link, f"{folder}/p")):
            yield proxy


@contextlib.asynccontextmanager
async def run_tcp_proxy(server_url: str) -> AsyncGenerator[Proxy]:
    """The same on a free port of the loopback interface. A server that speaks HTTP (http://)
    will do too, but for `tell`."""
    proxy = Proxy("", server_url)
    server = await asyncio.start_server(proxy.link, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    is_http = server_url.startswith("http:")
    proxy.url = f"http://127.0.0.1:{port}" if is_http else f"redis://127.0.0.1:{port}/0"
    async with _serving(proxy, server):
        yield proxy


@contextlib.asynccontextmanager
async def _serving(proxy: Proxy, server: asyncio.Server) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        server.close()
        await proxy.cut()
        await server.wait_closed()
