"""A pair of filters, `…_after` and `…_before`, as ms."""

from collections.abc import Callable

from msgspec import UNSET, UnsetType

from api.errors import ApiError, invalid
from api.wire import parse_moment

Bounds = tuple[int | None, int | None]
"""What lies between them, in ms: both are themselves outside. None: no bound."""


def time_bounds(
    name: str,
    after: str | UnsetType,
    before: str | UnsetType,
    now_ms: int,
    wrong: Callable[[str], ApiError],
) -> Bounds:
    """The bounds of `{name}_after` and `{name}_before`, times or ages.

    Raises ApiError (400): what `wrong` makes of the field's name when it is no time, and when no
    task can lie within both.
    """
    low, high = f"{name}_after", f"{name}_before"
    since = None if after is UNSET else _moment(low, after, now_ms, wrong)[0]
    until = None if before is UNSET else _moment(high, before, now_ms, wrong)[1]
    if since is not None and until is not None and since >= until:
        raise invalid(
            low,
            f"a time before {high}",
            f"{low}: expected a time before {high}, since no task can be both",
        )
    return since, until


def _moment(name: str, text: str, now_ms: int, wrong: Callable[[str], ApiError]) -> tuple[int, int]:
    try:
        return parse_moment(text, now_ms)
    except ValueError:
        raise wrong(name) from None
