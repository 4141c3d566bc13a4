"""What is known of each setting, read off its declaration: its names, its default, what it takes.

Flags, variables, the settings file, errors and the docs all have it from here.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import inspect

from ledger.settings import Settings

ENV_PREFIX = "LEDGERQ_"


class Knob(msgspec.Struct, frozen=True):
    """What is known of one setting, read off its field in `Settings`."""

    name: str
    env: str
    flag: str
    also: str | None
    """Another name of the flag, which is shown first."""
    type: Any
    default: Any
    expected: str
    description: str
    is_secret: bool = False
    """Its values are shown to nobody."""

    @property
    def flags(self) -> tuple[str, ...]:
        """All names of the flag, as they are shown."""
        return (self.also, self.flag) if self.also else (self.flag,)

    @property
    def default_text(self) -> str:
        """The default as a flag or a variable would say it; empty where there is none."""
        return value_text(self.default)


def value_text(value: Any) -> str:
    """A value as a flag or a variable says it; empty for none."""
    match value:
        case None:
            return ""
        case tuple():
            return ",".join(value)  # pyright: ignore[reportUnknownArgumentType] # only TaskType
        case _:
            return str(value)


def flag_of(name: str) -> str:
    """The flag of a setting that has no other name."""
    return f"--{name.replace('_', '-')}"


def _knob(field: msgspec.structs.FieldInfo) -> Knob:
    described = inspect.type_info(field.type)
    if not isinstance(described, inspect.Metadata):
        raise TypeError(f"setting {field.name} has no description")
    return Knob(
        name=field.name,
        env=ENV_PREFIX + field.name.upper(),
        flag=_notes(described).get("flag", flag_of(field.name)),
        also=_notes(described).get("also"),
        type=field.type,
        default=field.default,
        expected=_expected(described),
        description=_notes(described)["description"],
        is_secret=_is_secret(described.type),
    )


def _is_secret(kind: inspect.Type) -> bool:
    return isinstance(kind, inspect.VarTupleType) and "secret" in _notes(kind.item_type)


def _notes(described: Any) -> dict[str, str]:
    """The title, the description and the extras of a `Metadata`, whose dicts are not typed."""
    return {**(described.extra_json_schema or {}), **(described.extra or {})}


def _expected(kind: inspect.Type) -> str:
    """What a value of this type looks like, in words for a person."""
    match kind:
        case inspect.Metadata():
            return _notes(kind).get("title") or _expected(kind.type)
        case inspect.UnionType(types=(inner, _)):
            return f"{_expected(inner)}, or nothing"
        case inspect.VarTupleType(item_type=item):
            return f"a list of {_expected(item)}"
        case inspect.EnumType(cls=choices):
            return f"one of {', '.join(str(choice.value) for choice in choices)}"
        case inspect.IntType(ge=least, le=most):
            return f"a whole number from {least} to {most}"
        case inspect.FloatType(ge=least, le=most):
            return f"a number from {least} to {most}"
        case inspect.StrType():
            return "text that is not empty"
        case _:
            raise TypeError(f"settings of type {kind} have no description yet")


KNOBS: Mapping[str, Knob] = {field.name: _knob(field) for field in msgspec.structs.fields(Settings)}
