"""Query parameters, read through the struct that describes them.

A field of the struct is a parameter: its type and bounds are checked, its default stands for one
that is not sent, and `/openapi.json` tells callers just that. A parameter that is a list of values
is a tuple, sent separated by commas. One that may be left out without a default is
`... | UnsetType`: with `| None`, the text "null" would be read as None. What an error says was
expected follows from the type, or is the field's `Meta(extra={"expected": ...})`.
"""

import re
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

import msgspec
from msgspec import inspect

from api.comma_list import values_of
from api.errors import ApiError, invalid
from api.exchange import Exchange

if TYPE_CHECKING:
    from collections.abc import Mapping

Query = TypeVar("Query", bound=msgspec.Struct)

_AT_FIELD = re.compile(r"at `\$\.(\w+)")
_WHOLE: Final = re.compile("-?[0-9]{1,18}")


class QueryReader(Generic[Query]):
    """Reads the parameters of one kind of request."""

    def __init__(self, kind: type[Query]) -> None:
        self._kind = kind
        fields = msgspec.structs.fields(kind)
        self._names = tuple(field.encode_name for field in fields)
        types = {field.encode_name: inspect.type_info(field.type) for field in fields}
        self._lists = frozenset(name for name, of in types.items() if _is_list(of))
        self._numbers = frozenset(name for name, of in types.items() if _is_whole_number(of))
        self._expected: Mapping[str, str] = {name: expected_of(of) for name, of in types.items()}
        required = any(field.required for field in fields)
        self._nothing_given = None if required else kind()

    def read(self, exchange: Exchange) -> Query:
        """The parameters. Raises ApiError (400) that names the field: unknown, twice, or wrong."""
        found: dict[str, Any] = dict(exchange.parameters(*self._names))
        if not found and self._nothing_given is not None:
            return self._nothing_given
        for name in self._lists & found.keys():
            found[name] = values_of(found[name])
        for name in self._numbers & found.keys():
            # Read as JSON, 1.0 and 1e2 would be whole numbers too.
            if not _WHOLE.fullmatch(found[name]):
                raise self.wrong(name)
        return self.given(found)

    def given(self, values: "Mapping[str, Any]") -> Query:
        """The same of values that came in another way. Raises ApiError (400)."""
        try:
            return msgspec.convert(values, self._kind, strict=False)
        except msgspec.ValidationError as error:
            named = _AT_FIELD.search(str(error))
            raise self.wrong(named[1] if named else self._names[0]) from None

    def wrong(self, name: str, reason: str = "") -> ApiError:
        """400: the parameter is not what it must be."""
        expected = self._expected[name]
        return invalid(name, expected, f"{name}: expected {expected} ({reason})" if reason else "")


def expected_of(kind: inspect.Type) -> str:
    """What a value of this type looks like, in words for a person."""
    match kind:
        case inspect.Metadata():
            extra: dict[str, str] = cast("Any", kind).extra or {}
            return extra.get("expected") or expected_of(kind.type)
        case inspect.UnionType():
            return " or ".join(expected_of(of) for of in kind.types if not _is_absence(of))
        case inspect.VarTupleType(item_type=item, max_length=most):
            most_text = "" if most is None else f", at most {most}"
            return f"{expected_of(item)}, or several of them separated by commas{most_text}"
        case inspect.EnumType(cls=choices):
            return f"one of {', '.join(str(choice.value) for choice in choices)}"
        case inspect.IntType():
            return f"a whole number{_bounds(kind)}"
        case inspect.FloatType():
            return f"a number{_bounds(kind)}"
        case inspect.StrType(min_length=least, max_length=most) if most is not None:
            return f"text of {least or 0} to {most} characters"
        case inspect.BoolType():
            return "true or false"
        case inspect.StrType():
            return "text"
        case _:
            raise TypeError(f"query parameters of type {kind} have no description yet")


def _bounds(kind: inspect.IntType | inspect.FloatType) -> str:
    least = "" if kind.ge is None else f" from {kind.ge}"
    return least if kind.le is None else f"{least} to {kind.le}"


def _bare(kind: inspect.Type) -> inspect.Type:
    """Without its descriptions, and without the None that stands for "not sent"."""
    match kind:
        case inspect.Metadata():
            return _bare(kind.type)
        case inspect.UnionType():
            [only, *others] = [_bare(of) for of in kind.types if not _is_absence(of)]
            return kind if others else only
        case _:
            return kind


def _is_absence(kind: inspect.Type) -> bool:
    return isinstance(kind, inspect.NoneType)


def _is_list(kind: inspect.Type) -> bool:
    return isinstance(_bare(kind), inspect.VarTupleType)


def _is_whole_number(kind: inspect.Type) -> bool:
    return isinstance(_bare(kind), inspect.IntType)
