"""What obstore does, as `ObjectStore` says it."""

import contextlib
from collections.abc import AsyncIterator, Generator, Iterator
from typing import TYPE_CHECKING, Any, Final, cast

import obstore
from obstore.exceptions import BaseError

from ledger.objects.store import Listed, ObjectStoreError

if TYPE_CHECKING:
    from obstore.store import ObjectStore as Obstore

PIECE_BYTES: Final = 256 * 1024
"""Of an object that is read: at least so much at a time, but for the last."""

PAGE_OBJECTS: Final = 500

RANGE_REFUSED: Final = (
    "Server returned non-2xx status code: 416 ",
    "Received non-partial response when range requested",
)
"""As obstore words it, which has no exceptions of its own for that. Servers refuse to begin behind
the end, and may answer with the whole object (RFC 9110, 14.2). Whatever else goes wrong, the whole
object is not to be asked for in its place."""


class Wrapped:
    """An obstore store."""

    def __init__(self, store: "Obstore") -> None:
        self.store = store

    async def write(self, key: str, data: bytes) -> None:
        """Store these bytes, in the place of what was there."""
        with told(key):
            await obstore.put_async(self.store, key, data, use_multipart=False)

    async def read(self, key: str) -> bytes:
        """A whole object. Raises FileNotFoundError."""
        with told(key):
            found = await obstore.get_async(self.store, key)
            return bytes(await found.bytes_async())

    async def read_range(self, key: str, start: int, length: int) -> bytes:
        """At most so many bytes of an object from `start` on. Raises FileNotFoundError."""
        with told(key):
            try:
                found = await obstore.get_range_async(self.store, key, start=start, length=length)
                return bytes(found)
            except BaseError as error:
                if not any(words in str(error) for words in RANGE_REFUSED):
                    raise
                return (await self.read(key))[start : start + length]

    async def delete(self, key: str) -> None:
        """Remove an object, if it is there."""
        with told(key), contextlib.suppress(FileNotFoundError):
            await obstore.delete_async(self.store, key)

    async def stream(self, key: str) -> AsyncIterator[bytes]:
        """An object's bytes. Raises FileNotFoundError."""
        with told(key):
            found = await obstore.get_async(self.store, key)
            async for piece in found.stream(min_chunk_size=PIECE_BYTES):
                yield bytes(piece)

    def pieces(self, key: str) -> Iterator[bytes]:
        """As `stream`, for whoever is not on an event loop."""
        with told(key):
            found = obstore.get(self.store, key)
            for piece in found.stream(min_chunk_size=PIECE_BYTES):
                yield bytes(piece)

    async def listed(self, prefix: str) -> AsyncIterator[list[Listed]]:
        """The objects below a prefix, a page at a time."""
        with told(prefix):
            # Its type names Arrow's, which are not installed.
            pages = cast("Any", obstore).list(self.store, prefix, chunk_size=PAGE_OBJECTS)
            async for page in pages:
                yield [Listed(o["path"], o["size"], o["last_modified"]) for o in page]

    async def folders(self, prefix: str) -> list[str]:
        """The names right below a prefix under which there are objects."""
        with told(prefix):
            found = await cast("Any", obstore).list_with_delimiter_async(self.store, prefix)
            return sorted(each.rpartition("/")[2] for each in found["common_prefixes"])


@contextlib.contextmanager
def told(key: str) -> Generator[None]:
    """Errors as those of `ObjectStore`."""
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no object {key}") from None
    except (BaseError, OSError) as error:
        # The first line: obstore goes on with the insides of the request.
        raise ObjectStoreError(f"{key}: {str(error).partition(chr(10))[0][:300]}") from error
