"""The scalars of the API, each described once: its JSON type, its bounds, what it means.

The structs that parse requests and shape answers are made of these, and `/openapi.json` is made of
those structs. A bound that msgspec is to check stands in `Meta` itself; one that is checked by hand
(because of its error, or its cost) stands in `extra_json_schema`. What depends on the settings is
marked with `of_setting`, and filled in by `api.openapi`.
"""

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from ledger.identity import SYSTEM

SETTING_MARK: Final = "x-setting"
"""In a schema: the rest of it comes from the setting of this name."""

POSITION_PATTERN: Final = "[0-9]{1,2}:[0-9]{1,19}-[0-9]{1,19}"
POSITIONS_PATTERN: Final = f"{POSITION_PATTERN}(,{POSITION_PATTERN})*"
AFTER_EXPECTED: Final = (
    "a position such as 0:1763811000123-0, several for several partitions separated by commas, "
    "or beginning, or now"
)
AGE_EXPECTED: Final = (
    "an RFC 3339 time with an offset, such as 2030-01-31T09:30:00Z, "
    "or an age such as 90s, 15m, 1h, 7d"
)
AGE_PATTERN: Final = "[0-9]{1,9}[smhd]"
TIME_EXAMPLE: Final = "2026-11-22T09:30:00.123Z"
ID_EXAMPLE: Final = "019ab9e0-5c31-7cc4-9f6e-3f0d3f0e7a11"


def of_setting(name: str, **schema: Any) -> dict[str, Any]:
    """A piece of schema that the setting `name` completes."""
    return {SETTING_MARK: name, **schema}


TaskId = Annotated[
    str,
    Meta(
        description="The task's id: a lower-case UUID, version 7, or version 8 where an "
        "`Idempotency-Key` made it.",
        extra_json_schema={"format": "uuid"},
        examples=[ID_EXAMPLE],
    ),
]
Subject = Annotated[
    str,
    Meta(
        description="The task's id; `system` where the event belongs to no task.",
        extra_json_schema={"anyOf": [{"format": "uuid"}, {"const": SYSTEM}]},
        examples=[ID_EXAMPLE],
    ),
]
Moment = Annotated[
    str,
    Meta(
        description="A time in UTC, to the millisecond.",
        extra_json_schema={"format": "date-time"},
        examples=[TIME_EXAMPLE],
    ),
]
TimeOrAge = Annotated[
    str,
    Meta(
        extra_json_schema={
            "anyOf": [{"format": "date-time"}, {"pattern": f"^{AGE_PATTERN}$"}],
        },
        examples=["2026-11-22T09:30:00Z", "15m"],
        extra={"expected": AGE_EXPECTED},
    ),
]
CreatedAfter = Annotated[TimeOrAge, Meta(description="Created after this time, or less long ago.")]
CreatedBefore = Annotated[TimeOrAge, Meta(description="Created before this time, or longer ago.")]
TaskTypeName = Annotated[
    str,
    Meta(
        description="What kind of work it is. The types that are known stand in the settings.",
        extra_json_schema=of_setting("task_types"),
        examples=["document_processing"],
    ),
]
KbId = Annotated[
    str,
    Meta(
        description="The knowledge base (the tenant) that the task belongs to; no control "
        "characters.",
        min_length=1,
        max_length=255,
        extra_json_schema={"pattern": r"^[^\u0000-\u001f\u007f-\u009f]*$"},
        examples=["kb-1"],
    ),
]
Fingerprint = Annotated[
    str,
    Meta(
        description="Names a way to fail: a type, a kind of error and its message, but for what is "
        "particular in it.",
        pattern="^[0-9a-f]{16}$",
        examples=["5f0c8d1e9a37b264"],
        extra={"expected": "16 hexadecimal digits in lower case"},
    ),
]
Payload = Annotated[
    msgspec.Raw,
    Meta(
        description="The caller's data, given back byte for byte.",
        extra_json_schema={"type": "object"},
        examples=[{"file_path": "s3://docs/report.pdf"}],
    ),
]
Metadata = Annotated[
    msgspec.Raw,
    Meta(
        description="Further data of the caller's, given back byte for byte.",
        extra_json_schema={"type": ["object", "null"]},
        examples=[{"source": "crawler"}],
    ),
]
AnyJson = Annotated[msgspec.Raw, Meta(description="Any JSON value.")]
JsonObject = Annotated[msgspec.Raw, Meta(extra_json_schema={"type": "object"})]
Listed = Annotated[str, Meta(min_length=1, max_length=255)]
"""One of several texts that a query parameter names, separated by commas."""

MaxRetries = Annotated[
    int, Meta(ge=0, le=100, description="How often a failed attempt is tried again.")
]
TimeoutSeconds = Annotated[
    int, Meta(ge=1, le=86_400, description="Seconds that one attempt may take.")
]
Percent = Annotated[int, Meta(ge=0, le=100, description="How far the work is, in percent.")]
Count = Annotated[int, Meta(ge=0)]
Version = Annotated[
    int, Meta(ge=1, description="Number of the task's events so far; also its `ETag`.")
]
LedgerPosition = Annotated[
    str,
    Meta(
        description="Where an event stands in the ledger: `partition:entry`.",
        extra_json_schema={"pattern": f"^{POSITION_PATTERN}$"},
        examples=["0:1763803800123-0"],
    ),
]
