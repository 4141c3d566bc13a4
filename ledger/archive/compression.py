"""How bundles lie in the object store: as one Zstandard frame each (RFC 8878), behind a skippable
frame that holds the CRC-32 of it.

Without that, a few changes of compressed bytes would be noticed by nobody, since they are
decompressed to the same. Programs such as `zstd -d` step over it.
"""

import struct
import zlib
from typing import Final

from backports import zstd

LEVEL: Final = 1
"""Of Zstandard. Level 3 takes a third longer, for texts that are a twentieth smaller, and for
leaves that are larger."""

UNPACKED_BYTES_MAX: Final = 256 * 1024 * 1024
"""More than any bundle has: what is damaged must not fill the memory."""

_CHECK: Final = struct.Struct("<III")
_SKIPPABLE: Final = 0x184D2A5C
_CHECK_BYTES: Final = 4


def compress(data: bytes) -> bytes:
    """The two frames."""
    frame = zstd.compress(data, LEVEL)
    return _CHECK.pack(_SKIPPABLE, _CHECK_BYTES, zlib.crc32(frame)) + frame


def decompress(packed: bytes) -> bytes:
    """What was compressed. Raises ValueError for anything but these two whole frames."""
    frame = packed[_CHECK.size :]
    is_right = packed[: _CHECK.size] == _CHECK.pack(_SKIPPABLE, _CHECK_BYTES, zlib.crc32(frame))
    try:
        decompressor = zstd.ZstdDecompressor()
        data = decompressor.decompress(frame, UNPACKED_BYTES_MAX)
    except (zstd.ZstdError, EOFError) as error:
        raise ValueError(f"the compressed bytes are damaged: {error}") from error
    if not decompressor.eof:
        raise ValueError("the compressed bytes are damaged: they are cut off")
    if not is_right or decompressor.unused_data:
        raise ValueError("the compressed bytes are damaged: their checksum is another one")
    return data
