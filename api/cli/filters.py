"""The flags that choose among tasks; each is a filter of the API, and sent as it is typed."""

from typing import Annotated, Any

from cyclopts import Parameter

Kbs = Annotated[
    str | None, Parameter(name="--kb", help="of these knowledge bases", metavar="KB,...")
]
Statuses = Annotated[
    str | None, Parameter(name="--status", help="in these statuses", metavar="STATUS,...")
]
Types = Annotated[str | None, Parameter(name="--type", help="of these types", metavar="TYPE,...")]
Priorities = Annotated[
    str | None, Parameter(name="--priority", help="of these priorities", metavar="PRIORITY,...")
]
CreatedAfter = Annotated[
    str | None,
    Parameter(
        name="--created-after",
        help="created after this time (RFC 3339), or less long ago (90s, 15m, 1h, 7d)",
        metavar="TIME",
    ),
]

CreatedBefore = Annotated[
    str | None,
    Parameter(
        name="--created-before", help="created before this time, or longer ago", metavar="TIME"
    ),
]
FailedAfter = Annotated[
    str | None,
    Parameter(
        name="--failed-after", help="failed after this time, or less long ago", metavar="TIME"
    ),
]
FailedBefore = Annotated[
    str | None,
    Parameter(
        name="--failed-before", help="failed before this time, or longer ago", metavar="TIME"
    ),
]
ErrorKinds = Annotated[
    str | None,
    Parameter(
        name="--error-kind",
        help="failed for such a reason: retryable, permanent, timeout, worker_lost",
        metavar="KIND,...",
    ),
]
Fingerprints = Annotated[
    str | None,
    Parameter(
        name="--fingerprint",
        help="failed in one of these ways, as `ledgerq dead-letters` names them",
        metavar="FINGERPRINT,...",
    ),
]


def sent(**filters: Any) -> dict[str, str]:
    """The query of what was given."""
    return {name: str(value) for name, value in filters.items() if value is not None}
