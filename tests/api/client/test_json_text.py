"""What is handed over arrives as it was, or is refused by the name of its place."""

import json
import math
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from types import MappingProxyType
from typing import Any
from uuid import UUID

import msgspec
import pytest

from api.client import Submission
from api.client.json_text import json_of
from api.client.submission import encoded
from api.client.uploads import File, form_of

AN_ID = UUID("01981d11-9f4a-7000-8000-0123456789ab")


class Color(Enum):
    RED = "red"


class Point(msgspec.Struct):
    x: float


@dataclass
class Size:
    width: float


class Text(str):
    pass


class Number(float):
    pass


class Moment(datetime):
    pass


@pytest.mark.parametrize(
    ("value", "arrives"),
    [
        (None, None),
        (True, True),
        (2**70, 2**70),
        (1.5, 1.5),
        ("ü\0", "ü\0"),
        ((1, 2), [1, 2]),
        ({1: "a"}, {"1": "a"}),
        ({AN_ID: AN_ID}, {str(AN_ID): str(AN_ID)}),
        (MappingProxyType({"a": MappingProxyType({"b": 1})}), {"a": {"b": 1}}),
        (datetime(2026, 11, 26, 9, 30, tzinfo=UTC), "2026-11-26T09:30:00Z"),
        (Moment(2026, 11, 26, 9, 30, tzinfo=UTC), "2026-11-26T09:30:00+00:00"),
        (date(2026, 11, 26), "2026-11-26"),
        (timedelta(hours=1), "PT3600S"),
        (Decimal("1.10"), "1.10"),
        (Color.RED, "red"),
        (Point(1.5), {"x": 1.5}),
        (Size(2.5), {"width": 2.5}),
        ([Text("a"), Number(1.5)], ["a", 1.5]),
        (msgspec.Raw(b'{"a": 1.0}'), {"a": 1.0}),
    ],
)
def test_what_json_can_say_arrives(value: Any, arrives: Any) -> None:
    assert json.loads(json_of({"value": value})) == {"value": arrives}


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (math.nan, "payload.a[1].b: JSON has no nan"),
        (-math.inf, "payload.a[1].b: JSON has no -inf"),
        (Number(math.inf), "payload.a[1].b: JSON has no inf"),
        (Decimal("NaN"), "payload.a[1].b: JSON has no NaN"),
        (Point(math.nan), "payload.a[1].b.x: JSON has no nan"),
        (Size(math.nan), "payload.a[1].b.width: JSON has no nan"),
        (b"x", "payload.a[1].b: JSON has no bytes: decode them, or upload a file"),
        (bytearray(), "payload.a[1].b: JSON has no bytes: decode them, or upload a file"),
        ({1}, "payload.a[1].b: JSON has no sets: give a list, in an order that stays"),
        ({"a": 1}.keys(), "payload.a[1].b: JSON has no sets: give a list, in an order that stays"),
        (
            datetime(2026, 11, 26),  # noqa: DTZ001 - what is refused
            "payload.a[1].b: expected a time with an offset, got 2026-11-26T00:00:00",
        ),
        ("\ud800", "payload.a[1].b: '\\ud800' holds half a character"),
        ({"\ud800": 1}, "payload.a[1].b: '\\ud800' holds"),
        ({None: 1}, "payload.a[1].b: JSON has no keys such as None"),
        ({1.5: 1}, "payload.a[1].b: JSON has no keys such as 1.5"),
        (1j, "payload.a[1].b: JSON has no complex"),
        (object(), "payload.a[1].b: JSON has no object"),
        (range(3), "payload.a[1].b: JSON has no range"),
    ],
)
def test_what_it_cannot_say_is_refused_by_its_place(value: Any, told: str) -> None:
    submission = Submission("health_check", "kb-1", {"a": [0, {"b": value}]})

    with pytest.raises((TypeError, ValueError)) as refused:
        submission.encoded()

    assert str(refused.value).startswith(told)


def test_what_holds_itself_is_refused() -> None:
    ring: list[Any] = []
    ring.append(ring)

    with pytest.raises(ValueError, match="in itself"):
        json_of({"a": ring})


def test_metadata_is_held_to_the_same() -> None:
    with pytest.raises(ValueError, match=r"^metadata\.score: JSON has no nan$"):
        Submission("health_check", "kb-1", metadata={"score": math.nan}).encoded()


def test_the_payload_of_files_is_held_to_the_same() -> None:
    with pytest.raises(ValueError, match=r"^payload\.score: JSON has no nan$"):
        form_of(File("a", b""), "kb-1", None, {"score": math.nan}, {})


def test_one_among_many_is_told_by_its_number() -> None:
    many: list[Any] = [Submission("health_check", "kb-1"), Submission("a", "b", {"c": {1}})]

    with pytest.raises(TypeError, match=r"^submissions\[1\]\.payload\.c: JSON has no sets"):
        list(encoded(many))
    with pytest.raises(TypeError, match=r"^submissions\[2\]: expected a Submission, got dict$"):
        list(encoded([many[0], many[0], {}]))  # pyright: ignore[reportArgumentType] # what is refused
