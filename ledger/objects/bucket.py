"""Objects at an S3 endpoint, under a prefix of a bucket."""

import asyncio
import ipaddress
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import aiohttp
import obstore
from obstore.store import S3Store

from ledger.objects.store import Listed, ObjectStoreError
from ledger.objects.together import all_done
from ledger.objects.wrapped import Wrapped, told
from ledger.settings_sources import SettingsError

PUTS_MAX: Final = 32
"""At once; more wait in line."""

READS_MAX: Final = 32
"""At once, of those that are asked for together, or in parts."""

TRIES: Final = 3
FIRST_PAUSE_S: Final = 0.2
CONNECT_TIMEOUT: Final = timedelta(seconds=5)
RETRY_TIMEOUT: Final = timedelta(seconds=30)
SILENCE_TIMEOUT_S: Final = 30.0
SIGNED_FOR: Final = timedelta(minutes=15)
"""Until when a PUT may begin."""

REFUSAL_BYTES_MAX: Final = 4_096

ENDPOINT_VARIABLES: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")


class Bucket:
    """The store at `s3://bucket/prefix`.

    obstore does everything but send the files: it would send those above some MB in parts, keep
    parts in memory, and leave them at the store, where nobody sees them, if this process is killed
    meanwhile. So it signs one PUT, which is all or nothing, and the file is streamed from the disk.
    """

    def __init__(self, url: str) -> None:
        endpoint = next((os.environ[name] for name in ENDPOINT_VARIABLES if name in os.environ), "")
        plain, near = endpoint.startswith("http://"), _is_local(endpoint)
        if plain and not near and os.environ.get("AWS_ALLOW_HTTP", "").lower() != "true":
            raise SettingsError(
                [
                    f"object_store_url: the endpoint {endpoint} would get files and signatures"
                    " unencrypted: expected https, or a loopback address (AWS_ALLOW_HTTP=true"
                    " allows it all the same)"
                ]
            )
        store = S3Store.from_url(
            url,
            config={"endpoint": endpoint} if endpoint else None,
            client_options={"allow_http": plain, "connect_timeout": CONNECT_TIMEOUT},
            retry_config={"max_retries": TRIES, "retry_timeout": RETRY_TIMEOUT},
        )
        self._url = url
        self._store = store
        self._wrapped = Wrapped(store)
        # A proxy of the environment is not for services on this machine.
        self._trust_env = not near
        self._session: aiohttp.ClientSession | None = None
        self._puts = asyncio.Semaphore(PUTS_MAX)
        self._reads = asyncio.Semaphore(READS_MAX)

    async def put(self, key: str, source: Path, content_type: str) -> None:
        async with self._puts:
            pause_s = FIRST_PAUSE_S
            for left in reversed(range(TRIES)):
                try:
                    await self._put_once(key, source, content_type)
                    break
                except (_Passing, aiohttp.ClientError, TimeoutError, OSError) as error:
                    if not left:
                        reason = str(error) or type(error).__name__
                        raise ObjectStoreError(f"{self._url}: {reason}") from error
                await asyncio.sleep(pause_s)
                pause_s *= 2
        await asyncio.to_thread(source.unlink, missing_ok=True)

    async def write(self, key: str, data: bytes) -> None:
        async with self._puts:
            await self._wrapped.write(key, data)

    async def write_all(self, objects: Sequence[tuple[str, bytes]]) -> None:
        await all_done([self.write(key, data) for key, data in objects])

    async def read(self, key: str) -> bytes:
        return await self._wrapped.read(key)

    async def read_range(self, key: str, start: int, length: int) -> bytes:
        async with self._reads:
            return await self._wrapped.read_range(key, start, length)

    async def read_all(self, keys: Sequence[str]) -> list[bytes]:
        return await all_done([self._read_in_turn(key) for key in keys])

    async def delete(self, key: str) -> None:
        await self._wrapped.delete(key)

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        async for piece in self._wrapped.stream(key):
            yield piece

    def pieces(self, key: str) -> Iterator[bytes]:
        return self._wrapped.pieces(key)

    async def listed(self, prefix: str) -> AsyncIterator[list[Listed]]:
        async for page in self._wrapped.listed(prefix):
            yield page

    async def folders(self, prefix: str) -> list[str]:
        return await self._wrapped.folders(prefix)

    def path(self, key: str) -> None:
        return None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _read_in_turn(self, key: str) -> bytes:
        async with self._reads:
            return await self._wrapped.read(key)

    async def _put_once(self, key: str, source: Path, content_type: str) -> None:
        with told(key):
            url = await obstore.sign_async(self._store, "PUT", key, SIGNED_FOR)
        with await asyncio.to_thread(source.open, "rb") as file:
            # Of a file, aiohttp tells the length in front and reads in a thread.
            async with self._http().put(
                url, data=file, headers={"content-type": content_type}, allow_redirects=False
            ) as answer:
                if answer.status == 200:
                    return
                said = (await answer.content.read(REFUSAL_BYTES_MAX)).decode(errors="replace")
        refusal = f"the store answered {answer.status} to a PUT: {' '.join(said.split())[:300]}"
        if answer.status >= 500 or answer.status in (408, 429):
            raise _Passing(refusal)
        raise ObjectStoreError(f"{self._url}: {refusal}")

    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(
                total=None,
                sock_connect=CONNECT_TIMEOUT.total_seconds(),
                sock_read=SILENCE_TIMEOUT_S,
            )
            self._session = aiohttp.ClientSession(timeout=timeout, trust_env=self._trust_env)
        return self._session


class _Passing(Exception):
    """Worth another try."""


def _is_local(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
