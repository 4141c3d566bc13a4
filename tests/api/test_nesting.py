"""Depth is told without recursion, and a byte's field is found without a parser."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.fields import field_at
from ledger.nesting import LEVELS_MAX, is_too_deep


def nested(levels: int, left: bytes = b'{"a":', right: bytes = b"}") -> bytes:
    return left * levels + b"1" + right * levels


@pytest.mark.parametrize(("left", "right"), [(b"[", b"]"), (b'{"a":', b"}"), (b'[{"]":', b"}]")])
def test_the_bound_is_exact(left: bytes, right: bytes):
    per_level = left.count(b"[") + left.count(b"{")
    levels = LEVELS_MAX // per_level

    assert not is_too_deep(nested(levels, left, right))
    assert is_too_deep(nested(levels + 1, left, right))


TRICKS = {
    "brackets in text": b'{"a":"' + b"[" * 1_000 + b'"}',
    "escaped quote before brackets": b'{"a":"\\"' + b"[" * 1_000 + b'"}',
    "escaped backslash at the end": b'["\\\\",' + b"[],[]," * 300 + b'"["]',
    "neighbouring texts": b"[" + b'"[","{",' * 300 + b'""]',
    "siblings": b"[" + b"[]," * 1_000 + b"[]]",
}


@pytest.mark.parametrize("document", TRICKS.values(), ids=TRICKS)
def test_what_only_looks_deep_is_not(document: bytes):
    json.loads(document)

    assert not is_too_deep(document)


@given(
    st.recursive(
        st.text('a"\\[]{}é', max_size=4) | st.integers(0, 9),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.text('a"\\[{', max_size=3), inner, max_size=3)
        ),
    ),
    st.booleans(),
    st.integers(0, 6),
)
def test_depth_agrees_with_a_recursive_count(value: Any, ascii_only: bool, missing: int):
    document = json.dumps(value, ensure_ascii=ascii_only).encode()
    # Wrapped so far that its own depth decides.
    wrapped = nested_around(document, LEVELS_MAX - missing)

    assert is_too_deep(wrapped) == (LEVELS_MAX - missing + depth(value) > LEVELS_MAX)


def nested_around(document: bytes, levels: int) -> bytes:
    return b'["]",' * levels + document + b"]" * levels


def depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)  # pyright: ignore[reportUnknownArgumentType]
    return 0


@pytest.mark.parametrize(
    ("body", "mark", "place"),
    [
        (b'{"kb_id":"k","payload":{"x":!}}', b"!", (None, "payload")),
        (b'{"kb_id":!', b"!", (None, "kb_id")),
        (b"!", b"!", (None, "body")),
        (b'{"a":1} !', b"!", (None, "body")),
        (b'{"a,b":"c:d{","kb_id":"!"}', b"!", (None, "kb_id")),
        (b'{"a":"\\"","kb_id":!}', b"!", (None, "kb_id")),
        (b'[{"a":[1,2]},{"b":1,"c":!}]', b"!", (1, "c")),
        (b' [{},{},{"kb_id":"!', b"!", (2, "kb_id")),
        (b"[[1,2],3,!", b"!", (2, "body")),
    ],
)
def test_a_byte_is_traced_to_its_field(body: bytes, mark: bytes, place: tuple[int | None, str]):
    assert field_at(body, body.index(mark)) == place
