"""Task ids, and the partitions that they lead to."""

import uuid

import pytest
import uuid_utils
from hypothesis import given as for_all
from hypothesis import strategies as st

from ledger.identity import derived_id, is_task_id, partition_of

NAMES = st.text(max_size=8)
PARTS = st.tuples(NAMES, NAMES, st.none() | st.integers(0, 999))


def test_a_derived_id_never_changes():
    # Written down once: tasks under these ids are in ledgers already.
    assert derived_id("kb", "key") == "3954bb9f-c18b-8b37-9d7d-a5d8f02e5925"
    assert derived_id("kb", "key", 0) == "2dec5eb5-8a45-8eb2-8548-8b0a793bdc03"


@for_all(PARTS)
def test_a_derived_id_is_a_version_8_uuid(parts: tuple[str, str, int | None]):
    made = derived_id(*parts)

    assert is_task_id(made)
    assert uuid.UUID(made).version == 8
    assert uuid.UUID(made).variant == uuid.RFC_4122


@for_all(PARTS, PARTS)
def test_different_parts_give_different_ids(
    one: tuple[str, str, int | None], other: tuple[str, str, int | None]
):
    assert (derived_id(*one) == derived_id(*other)) == (one == other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("ab", "c"), ("a", "bc")),
        (("", "abc"), ("abc", "")),
        (("a", "b\0c"), ("a\0b", "c")),
        (("a", "b", 1), ("a", "b1")),
        (("a", "b", 1), ("a", "b")),
        (("a", "b", 1), ("a", "b", 11)),
        (("a", "é"), ("a", "e\u0301")),
    ],
)
def test_where_the_name_ends_and_the_key_begins_counts(
    one: tuple[str, str, int | None], other: tuple[str, str, int | None]
):
    assert derived_id(*one) != derived_id(*other)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("01996abc-2400-7000-8000-0000000000a7", True),
        ("01996ABC-2400-7000-8000-0000000000A7", False),
        ("01996abc240070008000000000000 0a7", False),
        ("01996abc-2400-7000-8000-0000000000a7\n", False),
        ("", False),
    ],
)
def test_a_task_id_is_a_lower_case_uuid(text: str, expected: bool):
    assert is_task_id(text) is expected


@pytest.mark.parametrize("partitions", [1, 2, 7, 64])
def test_ids_spread_over_all_partitions(partitions: int):
    made = [str(uuid_utils.uuid7()) for _ in range(64 * partitions)]

    assert {partition_of(task_id, partitions) for task_id in made} == set(range(partitions))


def test_a_partition_is_the_last_16_bits_modulo_the_partitions():
    assert partition_of("01996abc-2400-7000-8000-00000000ffff", 10) == 0xFFFF % 10
