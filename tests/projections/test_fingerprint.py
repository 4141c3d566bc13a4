"""What errors have in common once all that is particular is taken out of them."""

import time
from collections.abc import Sequence

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from ledger.events import ErrorKind
from projections.fingerprint import CHARACTERS_MAX, fingerprint, pattern

KIND = ErrorKind.RETRYABLE


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("timeout after 300 s", "timeout after <n> s"),
        ("KeyError: 'chunks'", "KeyError: <text>"),
        ("can't open it, won't do it", "can't open it, won't do it"),
        ('no field "a b" in `c`', "no field <text> in <text>"),
        ("refused by the store at 10.0.0.7:6333 (12)", "refused by the store at <n> (<n>)"),
        ("at 2026-11-25T10:11:12.123Z", "at <n>T<n>Z"),
        ("read /var/x.log: denied", "read <path>: denied"),
        ("in incoming/a.pdf, or ./x, ~/y or a/b/c", "in <path>, or <path>, <path> or <path>"),
        ("either/or", "either/or"),
        ("C:\\Users\\x\\a.txt is missing", "<path> is missing"),
        ("GET http://a:80/x?y=1 -> 503", "GET <path> -> <n>"),
        ("no such file: s3://knowledge/report.pdf", "no such file: <path>"),
        ("task 019ab9e0-5c31-7cc4-9f6e-3f0d3f0e7a11 lost", "task <id> lost"),
        ("at 0x7F3a, sha 9f86d081884c7d65", "at <hex>, sha <hex>"),
        ("a decade of facade", "a decade of facade"),
        ("  two\n lines\t", "two lines"),
        ("", ""),
    ],
)
def test_what_is_particular_is_taken_out(message: str, expected: str):
    assert pattern(message) == expected


WORDS = st.lists(
    st.sampled_from(["timeout", "of", "store", "refused:", "(code)", "it's", "decade", "and/or"]),
    min_size=1,
    max_size=4,
).map(" ".join)
LETTERS = st.text("abcxyz -", max_size=8)
PARTICULARS: dict[str, st.SearchStrategy[str]] = {
    "n": st.integers(0).map(str) | st.floats(0, 1e15).map("{:.3f}".format),
    "id": st.uuids().map(str),
    "hex": st.integers(0, 2**64).map("{:#x}".format),
    "text": LETTERS.map("'{}'".format) | LETTERS.map('"{}"'.format),
    "path": st.lists(st.text("abc123._", min_size=1, max_size=5), min_size=1, max_size=4).map(
        lambda parts: "/" + "/".join(parts)
    ),
}
slots = st.lists(st.tuples(WORDS, st.sampled_from(sorted(PARTICULARS))), max_size=5)


@for_all(slots, st.data())
def test_only_what_is_particular_may_differ_between_messages_of_one_kind(
    slots: Sequence[tuple[str, str]], data: st.DataObject
):
    def filled() -> str:
        return " ".join(f"{words} {data.draw(PARTICULARS[kind])}" for words, kind in slots)

    expected = " ".join(f"{words} <{kind}>" for words, kind in slots)

    assert pattern(filled()) == expected
    assert fingerprint("t", KIND, filled()) == fingerprint("t", KIND, filled())


@for_all(st.lists(WORDS, min_size=2, max_size=2, unique=True))
def test_other_words_are_another_kind(messages: list[str]):
    first, second = messages

    assert fingerprint("t", KIND, first) != fingerprint("t", KIND, second)


def test_another_type_and_another_kind_of_error_are_another_kind_of_failure():
    known = {fingerprint(t, kind, "no") for t in ("a", "b") for kind in ErrorKind}

    assert len(known) == 2 * len(ErrorKind)


@for_all(st.text())
def test_any_text_has_a_pattern_without_digits_and_without_lines(message: str):
    found = pattern(message)

    assert not set(found) & set("0123456789\n\t")
    assert pattern(f" {message}\n") == pattern(message)


def test_a_fingerprint_never_changes():
    """Callers keep them, and the read models of all nodes name failures alike."""
    assert fingerprint("thumbnail", ErrorKind.TIMEOUT, "took 30 s").hex() == "c79d195159f99d8a"


@pytest.mark.parametrize(
    "piece", ["'", '"', "/", "a-", "ab.~-", "'\\", "a/", "1-", "A+.-", "a:", "\\", "`x", "abcdef1"]
)
def test_no_text_takes_long(piece: str):
    message = piece * CHARACTERS_MAX
    pattern(message)
    began = time.process_time()
    pattern(message)

    assert time.process_time() - began < 0.02


def test_what_comes_late_in_a_text_does_not_count():
    first = "x" * CHARACTERS_MAX

    assert fingerprint("t", KIND, f"{first}a") == fingerprint("t", KIND, f"{first}b")
