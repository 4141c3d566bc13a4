"""A cursor says where a page ended, to the one who asked for that page."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projections.cursor import BadCursor, query_digest, read_cursor, write_cursor
from projections.list_query import Anchor

SECRET = b"a secret"
DIGEST = query_digest(["a", None])
ANCHOR = Anchor("set", 1_760_000_000_000, bytes(16))

anchors = st.builds(
    Anchor,
    st.sampled_from(["set", "a" * 63]),
    st.integers(0, 2**53),
    st.binary(min_size=16, max_size=16),
)
bounds = st.tuples(st.none() | st.integers(-(2**60), 2**60), st.none() | st.integers(0, 2**53))


@given(anchor=anchors, created=bounds)
def test_a_cursor_is_read_as_it_was_written(anchor: Anchor, created: tuple[int | None, int | None]):
    read = read_cursor(SECRET, write_cursor(SECRET, DIGEST, created, anchor), DIGEST)

    assert (read.anchor, read.created_after, read.created_before) == (anchor, *created)


@given(text=st.text(max_size=200))
def test_any_other_text_is_refused(text: str):
    with pytest.raises(BadCursor):
        read_cursor(SECRET, text, DIGEST)


def test_a_cursor_of_another_ledger_is_refused():
    cursor = write_cursor(b"another secret", DIGEST, (None, None), ANCHOR)

    with pytest.raises(BadCursor, match="none that was given out"):
        read_cursor(SECRET, cursor, DIGEST)


def test_a_cursor_of_another_query_is_refused():
    cursor = write_cursor(SECRET, query_digest(["b", None]), (None, None), ANCHOR)

    with pytest.raises(BadCursor, match="other filters"):
        read_cursor(SECRET, cursor, DIGEST)


@given(data=st.data())
def test_a_cursor_with_one_letter_changed_is_refused(data: st.DataObject):
    cursor = write_cursor(SECRET, DIGEST, (None, 5), ANCHOR)
    place = data.draw(st.integers(0, len(cursor) - 1))
    letter = data.draw(st.sampled_from("ABab01-_+/=").filter(lambda x: x != cursor[place]))

    with pytest.raises(BadCursor):
        read_cursor(SECRET, cursor[:place] + letter + cursor[place + 1 :], DIGEST)
