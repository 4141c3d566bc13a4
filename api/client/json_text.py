"""What callers hand over, as JSON: what JSON has no way to say is refused, and its place named,
rather than changed into something that it can.

Mappings, dataclasses and msgspec structs become objects, lists and tuples arrays; times with an
offset, dates, durations, UUIDs and Decimals texts, enums their values. A `msgspec.Raw` goes out as
it is.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence, Set
from datetime import datetime
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

import msgspec

Place = tuple["Place | None", str | int]
"""The name of a field or the number of an item, behind the place that it is in: told in words only
where something is wrong."""


def json_of(value: Any, name: str = "") -> bytes:
    """Its JSON. Raises TypeError or ValueError, which begins with the place below `name`, for what
    JSON does not have: NaN and the infinities, bytes, sets, times without an offset, objects."""
    try:
        _check(value, (None, name) if name else None)
        return msgspec.json.encode(value, enc_hook=_builtin)
    except RecursionError:
        raise ValueError(f"{name or 'this'}: nested too deeply, or in itself") from None


def _check(value: Any, at: Place | None) -> None:
    """Raises for what msgspec would refuse, and for what it would make another thing of."""
    if value is None or isinstance(value, int):
        return
    if isinstance(value, str):
        _check_text(value, at)
    elif isinstance(value, float | Decimal):
        if not math.isfinite(value):
            raise ValueError(f"{_told(at)}: JSON has no {value}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(cast("Sequence[Any]", value)):
            _check(item, (at, index))
    elif (fields := _fields(value)) is not None:
        for key, item in fields.items():
            _check(item, (at, _name(key, at)))
    else:
        _check_rare(value, at)


def _fields(value: Any) -> Mapping[Any, Any] | None:
    """Those of what becomes an object."""
    if isinstance(value, Mapping):
        return cast("Mapping[Any, Any]", value)
    if isinstance(value, msgspec.Struct):
        return msgspec.structs.asdict(value)
    if dataclasses.is_dataclass(value):
        return {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    return None


def _name(key: object, at: Place | None) -> str:
    if not isinstance(key, str | int | UUID) or isinstance(key, bool):
        raise TypeError(f"{_told(at)}: JSON has no keys such as {key!r}")
    name = str(key)
    _check_text(name, at)
    return name


def _check_text(text: str, at: Place | None) -> None:
    try:
        if not text.isascii():
            text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{_told(at)}: {text[:80]!r} holds half a character") from None


def _check_rare(value: Any, at: Place | None) -> None:
    if isinstance(value, bytes | bytearray | memoryview):
        raise TypeError(f"{_told(at)}: JSON has no bytes: decode them, or upload a file")
    if isinstance(value, Set):
        raise TypeError(f"{_told(at)}: JSON has no sets: give a list, in an order that stays")
    if isinstance(value, datetime) and value.tzinfo is None:
        raise ValueError(f"{_told(at)}: expected a time with an offset, got {value.isoformat()}")
    try:
        msgspec.json.encode(value, enc_hook=_builtin)
    except TypeError:
        raise TypeError(f"{_told(at)}: JSON has no {type(value).__name__}") from None


def _told(at: Place | None) -> str:
    """The place in words, such as `payload.pages[3].score`."""
    words: list[str] = []
    while at is not None:
        at, name = at
        words.append(f"[{name}]" if isinstance(name, int) else f".{name}")
    return "".join(reversed(words)).removeprefix(".")


def _builtin(value: Any) -> Any:
    """What something is that only a class of its own hides, such as NumPy's float64."""
    if isinstance(value, Mapping):
        return dict(cast("Mapping[Any, Any]", value))
    if isinstance(value, datetime):
        return value.isoformat()
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    raise TypeError
