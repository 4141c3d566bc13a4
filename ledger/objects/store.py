"""What an object store does, and which one the settings name."""

from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

import msgspec

from ledger.settings import Settings


class ObjectStoreError(Exception):
    """The store refused, or cannot be reached. It may be better later."""


class Listed(msgspec.Struct, frozen=True):
    """An object that is there."""

    key: str
    size: int
    modified: datetime


class ObjectStore(Protocol):
    """Keeps objects by key. Every method may raise ObjectStoreError."""

    async def put(self, key: str, source: Path, content_type: str) -> None:
        """Store the file `source` whole or not at all. When this returns, the object survives a
        loss of power, and `source` is gone."""
        ...

    async def write(self, key: str, data: bytes) -> None:
        """Store these bytes, in the place of what was there. When this returns, they survive a loss
        of power; before, there is the old object or the new one, and none in between."""
        ...

    async def write_all(self, objects: Sequence[tuple[str, bytes]]) -> None:
        """As `write`, of many, for little more than one takes. When it raises, each may be there or
        not."""
        ...

    async def read(self, key: str) -> bytes:
        """A whole object. Raises FileNotFoundError."""
        ...

    async def read_range(self, key: str, start: int, length: int) -> bytes:
        """At most so many bytes of an object (at least 1) from `start` on: fewer where it ends
        sooner, none where it ends before. Raises FileNotFoundError."""
        ...

    async def read_all(self, keys: Sequence[str]) -> list[bytes]:
        """As `read`, of many."""
        ...

    async def delete(self, key: str) -> None:
        """Remove an object, if it is there."""
        ...

    def stream(self, key: str) -> AsyncIterator[bytes]:
        """An object's bytes, piece by piece. Raises FileNotFoundError."""
        ...

    def pieces(self, key: str) -> Iterator[bytes]:
        """As `stream`, for whoever is not on an event loop."""
        ...

    def listed(self, prefix: str) -> AsyncIterator[list[Listed]]:
        """The objects below a prefix, a page at a time."""
        ...

    async def folders(self, prefix: str) -> list[str]:
        """The names right below a prefix under which there are objects, whatever lies below
        these."""
        ...

    def path(self, key: str) -> Path | None:
        """Where the object lies on this machine; None where it does not."""
        ...

    async def close(self) -> None:
        """End what runs beside."""
        ...


def objects_folder(settings: Settings) -> Path | None:
    """The folder that objects lie in; None when they lie elsewhere."""
    url = settings.object_store_url
    if url is None:
        return Path(settings.data_dir) / "objects"
    parts = urlsplit(url)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def open_objects(settings: Settings) -> ObjectStore:
    """The store that the settings name: a folder, or `s3://bucket/prefix`, whose endpoint and
    credentials the environment names (`AWS_*`). Nothing is asked of it yet.

    Raises SettingsError where an endpoint is one that credentials must not be sent to.
    """
    folder = objects_folder(settings)
    # What either needs is imported with the first use: few processes use one, none uses both.
    if folder is not None:
        from ledger.objects.local_folder import LocalFolder

        return LocalFolder(folder)
    from ledger.objects.bucket import Bucket

    assert settings.object_store_url is not None  # noqa: S101 - else there is a folder
    return Bucket(settings.object_store_url)
