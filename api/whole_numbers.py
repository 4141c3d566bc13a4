"""Whole numbers that were written with a fraction or an exponent: `3.0`, `1e2`.

JSON Schema counts them as integers, and so does the API's own description; the strict decoder does
not. Some languages write every number like that.
"""

from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

Body = TypeVar("Body")

WHOLE_MAX: Final = 2**53
"""Above it, floating point skips whole numbers."""

REFUSED: Final = "got `float`"
"""What the decoder's error says of such a number."""

_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def decoded(decode: Callable[[bytes | msgspec.Raw], Body], document: bytes | msgspec.Raw) -> Body:
    """What `decode` makes of a JSON object, however its whole numbers are written. Raises as it
    does."""
    try:
        return decode(document)
    except msgspec.ValidationError as error:
        if REFUSED not in str(error):
            raise
        return decode(with_whole_numbers(document))


def with_whole_numbers(document: bytes | msgspec.Raw) -> bytes:
    """The same JSON object, in which numbers without a fraction are written without one. Fields
    that are no numbers keep their bytes. `document` has been found to be valid JSON."""
    fields = _decode_fields(document)
    return msgspec.json.encode({name: _whole(value) for name, value in fields.items()})


def _whole(raw: msgspec.Raw) -> msgspec.Raw:
    text = bytes(raw)
    if text[:1] not in b"-0123456789":
        return raw
    value = float(text)
    if not value.is_integer() or abs(value) > WHOLE_MAX:
        return raw
    return msgspec.Raw(b"%d" % int(value))
