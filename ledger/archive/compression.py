"""How bundles lie in the object store: as one Zstandard frame each (RFC 8878)."""

from typing import Final

from backports import zstd

LEVEL: Final = 3

UNPACKED_BYTES_MAX: Final = 256 * 1024 * 1024
"""More than any bundle has: what is damaged must not fill the memory."""


def compress(data: bytes) -> bytes:
    """One frame."""
    return zstd.compress(data, LEVEL)


def decompress(packed: bytes) -> bytes:
    """What was compressed. Raises ValueError for anything but one whole frame."""
    try:
        frame = zstd.ZstdDecompressor()
        data = frame.decompress(packed, UNPACKED_BYTES_MAX)
    except (zstd.ZstdError, EOFError) as error:
        raise ValueError(f"the compressed bytes are damaged: {error}") from error
    if not frame.eof or frame.unused_data:
        raise ValueError("the compressed bytes are cut off, or followed by others")
    return data
