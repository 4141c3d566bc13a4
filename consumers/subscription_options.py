"""What a member of a subscription asks for, and whether it can be meant: what is kept of a group in
the ledger has to be read by everybody else."""

import itertools
from collections.abc import Iterable
from datetime import datetime
from typing import Final

import msgspec

from consumers.subscription_start import START_EXPECTED, Start
from ledger.events import EVENT_TYPES
from ledger.identity import SYSTEM, is_task_id
from ledger.store import Position
from ledger.subscriptions import GROUP_EXPECTED, Filters, is_group_name
from ledger.system.events import SYSTEM_EVENT_TYPES

LEASE_MS_MIN: Final = 1_000
LEASE_MS_MAX: Final = 600_000
"""For so long nobody reads what a dead member held."""

VALUES_MAX: Final = 1_000
VALUE_CHARACTERS_MAX: Final = 255
"""Of each filter. Every member looks its group up with each beat."""


class Options(msgspec.Struct, frozen=True):
    """What a member asks for."""

    name: str
    start: Start
    filters: Filters
    redis_url: str | None
    data_dir: str | None
    lease_ms: int
    unacked_max: int


def check_terms(group: object, start: object, lease_ms: object, unacked_max: object) -> None:
    """Raises ValueError for what cannot be meant."""
    if not isinstance(group, str) or not is_group_name(group):
        raise ValueError(f"group: expected {GROUP_EXPECTED}, got {group!r:.120}")
    if not isinstance(start, str | datetime | Position):
        raise ValueError(f"start: expected {START_EXPECTED}, got {start!r:.80}")
    if not isinstance(lease_ms, int) or not LEASE_MS_MIN <= lease_ms <= LEASE_MS_MAX:
        expected = f"{LEASE_MS_MIN} to {LEASE_MS_MAX}"
        raise ValueError(f"lease_ms: expected {expected}, got {lease_ms!r:.80}")
    if not isinstance(unacked_max, int) or unacked_max < 1:
        raise ValueError(f"unacked_max: expected 1 or more, got {unacked_max!r:.80}")


def filters_of(
    types: Iterable[str],
    kb_ids: Iterable[str],
    task_types: Iterable[str],
    task_ids: Iterable[str],
) -> Filters:
    """What events are wanted. Raises ValueError for what cannot be meant."""
    filters = Filters(
        _listed("types", types),
        _listed("kb_ids", kb_ids),
        _listed("task_types", task_types),
        _listed("task_ids", task_ids),
    )
    known = EVENT_TYPES.keys() | SYSTEM_EVENT_TYPES.keys()
    for name in filters.types:
        if name not in known:
            raise ValueError(f"types: there is no event {name!r}, only {', '.join(sorted(known))}")
    for task_id in filters.task_ids:
        if not is_task_id(task_id) and task_id != SYSTEM:
            raise ValueError(f"task_ids: expected lower-case UUIDs, got {task_id[:80]!r}")
    return filters


def _listed(name: str, values: Iterable[str]) -> tuple[str, ...]:
    if isinstance(values, str):
        raise ValueError(f"{name}: expected a list of texts, got the text {values[:80]!r}")
    listed = list(itertools.islice(values, VALUES_MAX + 1))
    for value in listed:
        if not _is_value(value):
            expected = f"texts of 1 to {VALUE_CHARACTERS_MAX} characters"
            raise ValueError(f"{name}: expected {expected}, got {value!r:.80}")
    if len(listed) > VALUES_MAX:
        raise ValueError(f"{name}: expected at most {VALUES_MAX} values, got more")
    return tuple(sorted(set(listed)))


def _is_value(value: object) -> bool:
    """Whether it can stand in a filter: a number, say, would be written, and read by nobody."""
    if not isinstance(value, str) or not 0 < len(value) <= VALUE_CHARACTERS_MAX:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
