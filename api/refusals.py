"""What is wrong with a body, in words that name the field and what was expected."""

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from api.errors import ApiError, ErrorCode, invalid
from api.fields import field_at, too_deep_field
from ledger.nesting import LEVELS_MAX

UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What a decode raises over bytes that callers sent."""

Unreadable = msgspec.MsgspecError | UnicodeDecodeError | RecursionError

_AT_FIELD = re.compile(r"^(?P<problem>.*) - at `\$\.(?P<field>\w+).*`$", re.DOTALL)
_UNKNOWN = re.compile(r"^Object contains unknown field `(?P<name>.*)`$", re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `(?P<name>\w+)`$")
_AT_BYTE = re.compile(r"\(byte (\d+)\)$")
_HALF_PAIR = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])")


class Refusals:
    """Errors over bodies of one kind. `expected` says for each field what it must be.

    `index` is a submission's place in a batch, None outside one.
    """

    def __init__(self, expected: Mapping[str, str]) -> None:
        self._expected = expected
        self._fields = ", ".join(expected)

    def wrong(self, field: str, index: int | None, reason: str = "") -> ApiError:
        """400: the field holds something else."""
        return _refused(field, self._expected[field], index, reason)

    def too_deep(self, field: str, index: int | None) -> ApiError:
        """400: the field is nested too deeply."""
        return _refused(field, f"at most {LEVELS_MAX} levels of nesting", index)

    def too_large(self, field: str, index: int | None, size: int, bytes_max: int) -> ApiError:
        """413: the field takes too many bytes."""
        expected = f"at most {bytes_max} bytes"
        return ApiError(
            ErrorCode.PAYLOAD_TOO_LARGE,
            f"{_named(field, index)}: expected {expected}, got {size}",
            {"field": field, "expected": expected, **_indexed(index)},
        )

    def huge_number(self, field: str, index: int | None, reason: str) -> ApiError:
        """400: no reader would take a number in the field."""
        expected = "numbers that fit in 64 bits of floating point"
        return _refused(field, expected, index, reason)

    def no_batch(self, items_max: int, reason: str) -> ApiError:
        """400: the body is not a list, or not of so many."""
        return _refused("body", f"a JSON array of 1 to {items_max} submissions", None, reason)

    def unreadable(self, error: Unreadable, body: bytes, index: int | None = None) -> ApiError:
        """400: what the failed decode of `body` means; with `index`, body is that item alone."""
        match error:
            case RecursionError():
                place = too_deep_field(body)
                return self.too_deep(place.field, _either(index, place.item))
            case UnicodeDecodeError():
                place = field_at(body, error.start)
                reason = f"byte {error.start} of the body is not"
                return _refused(place.field, "UTF-8", _either(index, place.item), reason)
            case msgspec.ValidationError():
                return self._of_validation(str(error), index)
            case _:
                return _malformed(str(error), body, index)

    def _of_validation(self, text: str, index: int | None) -> ApiError:
        """msgspec says what is wrong in words; the field stands in them."""
        unknown = _UNKNOWN.match(text)
        if unknown:
            expected = f"one of the fields {self._fields}"
            return _refused(unknown["name"][:100], expected, index, "there is no such field")
        missing = _MISSING.match(text)
        if missing:
            return self.wrong(missing["name"], index, "it is missing")
        at_field = _AT_FIELD.match(text)
        if at_field:
            return self.wrong(at_field["field"], index, at_field["problem"][:200])
        return _refused("body", f"a JSON object with the fields {self._fields}", index, text[:200])


def _malformed(text: str, body: bytes, index: int | None) -> ApiError:
    at = _AT_BYTE.search(text)
    if at:
        offset = int(at[1])
    else:
        # msgspec calls a body that ends soon after half a surrogate pair a truncated one.
        half = _HALF_PAIR.search(body)
        offset = half.start() if half else len(body)
        text = "JSON is malformed: half of an escaped surrogate pair" if half else text
    place = field_at(body, offset)
    return _refused(place.field, "valid JSON", _either(index, place.item), text)


def _refused(field: str, expected: str, index: int | None, reason: str = "") -> ApiError:
    message = f"{_named(field, index)}: expected {expected}{f' ({reason})' if reason else ''}"
    return invalid(field, expected, message, **_indexed(index))


def _either(index: int | None, item: int | None) -> int | None:
    return item if index is None else index


def _named(field: str, index: int | None) -> str:
    return field if index is None else f"item {index}: {field}"


def _indexed(index: int | None) -> dict[str, int]:
    return {} if index is None else {"index": index}
