"""Filters by task type: a type that nobody registered is a mistake, not an empty answer."""

from collections.abc import Collection

from api.errors import invalid


def check_types(named: Collection[str], known: Collection[str]) -> None:
    """Raises ApiError (400) for a type that is not among the known ones."""
    unknown = [name for name in named if name not in known]
    if unknown:
        expected = f"one of {', '.join(known)}"
        raise invalid(
            "task_type", expected, f"task_type: expected {expected} (not {unknown[0][:80]})"
        )
