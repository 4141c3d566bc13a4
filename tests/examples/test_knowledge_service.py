"""The example service: splitting, reading, storing, indexing and searching real documents."""

import asyncio
import multiprocessing
import os
import sqlite3
import sysconfig
from codecs import BOM_UTF8
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from consumers import Context, PermanentError
from examples.knowledge_service import chunks, documents, store
from examples.knowledge_service.chunks import ChunkError, split
from examples.knowledge_service.documents import DocumentError, Format, read_document
from examples.knowledge_service.handlers import (
    index_knowledge,
    process_batch,
    process_document,
)
from examples.knowledge_service.html_text import text_of_html
from examples.knowledge_service.markdown_text import text_of_markdown
from examples.knowledge_service.search import search
from examples.knowledge_service.store import open_store

if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier

FAR_S = 4_102_444_800.0  # the year 2100
STDLIB = Path(sysconfig.get_path("stdlib"))


# --- splitting ------------------------------------------------------------------------------


@st.composite
def sizes(draw: st.DrawFn) -> tuple[int, int]:
    """A chunk size and an overlap that goes with it."""
    size = draw(st.integers(1, 60))
    return size, draw(st.integers(0, size - 1))


long_words = st.text(alphabet=st.sampled_from("ab.é漢🙂"), min_size=1, max_size=30)
pauses = st.sampled_from([" ", "\t", "\n", "\n\n", "  "])
texts = st.lists(long_words | pauses, max_size=60).map("".join)


@given(texts, sizes())
def test_chunks_without_what_they_share_are_the_text(text: str, sizes: tuple[int, int]) -> None:
    end = 0
    together = ""
    for chunk in split(text, *sizes):
        together += chunk.text[end - chunk.start :]
        end = chunk.end
    assert together == text


@given(texts, sizes())
def test_each_chunk_stands_where_it_says_and_is_not_too_long(
    text: str, sizes: tuple[int, int]
) -> None:
    for chunk in split(text, *sizes):
        assert chunk.text == text[chunk.start : chunk.end]
        assert 0 < len(chunk.text) <= sizes[0]


@given(texts, sizes())
def test_neighbours_share_between_half_and_all_of_the_overlap(
    text: str, sizes: tuple[int, int]
) -> None:
    _, overlap = sizes
    for left, right in pairwise(split(text, *sizes)):
        assert overlap / 2 <= left.end - right.start <= overlap


@given(texts, sizes())
def test_each_chunk_begins_and_ends_after_the_one_before(text: str, sizes: tuple[int, int]) -> None:
    for left, right in pairwise(split(text, *sizes)):
        assert left.start < right.start
        assert left.end < right.end


@given(st.lists(st.text("abc", min_size=1, max_size=5), max_size=100))
def test_words_are_not_cut_where_there_is_a_space_to_end_at(words: list[str]) -> None:
    for chunk in split(" ".join(words), 40, 20):
        assert set(chunk.text.split()) <= set(words)


def test_a_chunk_ends_after_a_paragraph_rather_than_after_a_line_or_a_word() -> None:
    text = "one two\nthree\n\nfour\nfive six seven"
    first, *_ = split(text, 22, 0)
    assert first.text == "one two\nthree\n\n"


def test_a_chunk_begins_at_a_word_unless_that_would_cost_half_of_the_overlap() -> None:
    late, early = "x" * 35 + " yy zz ", "x" * 27 + " yyyyyyyyyyyy "
    assert [chunk.start for chunk in split(late + "w" * 40, 42, 20)][1] == 42 - 20
    assert [chunk.start for chunk in split(early + "w" * 40, 42, 20)][1] == 28


def test_an_empty_text_has_no_chunks() -> None:
    assert list(split("", 10, 5)) == []


@pytest.mark.parametrize(("size", "overlap"), [(0, 0), (-1, 0), (10, 10), (10, 11), (10, -1)])
def test_parameters_that_make_no_sense_are_refused(size: int, overlap: int) -> None:
    with pytest.raises(ChunkError, match="chunk_"):
        split("text", size, overlap)


def test_parameters_that_would_make_endless_chunks_are_refused() -> None:
    with pytest.raises(ChunkError, match="raise chunk_size"):
        list(split("a" * (chunks.CHUNKS_MAX + 1), 1, 0))


def test_an_overlap_that_would_multiply_the_text_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(chunks, "CHARACTERS_MAX", 10_000)
    with pytest.raises(ChunkError, match="lower chunk_overlap"):
        list(split("a" * 5_000, 1_000, 999))


# --- reading --------------------------------------------------------------------------------


def write(folder: Path, name: str, content: str | bytes) -> str:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def test_a_text_is_read_as_it_is_with_its_lines_ending_in_one_way(tmp_path: Path) -> None:
    content = b"one\r\ntwo\rthree\n"
    document = read_document(write(tmp_path, "notes.TXT", content))
    assert document.text == "one\ntwo\nthree\n"
    assert document.format is Format.TEXT
    assert document.encoding == "utf-8"
    assert document.sha256 == sha256(content).hexdigest()
    assert document.note == ""


def test_python_is_kept_as_it_is() -> None:
    path = STDLIB / "heapq.py"
    document = read_document(str(path))
    assert document.text == path.read_text(encoding="utf-8")
    assert document.format is Format.PYTHON


def test_html_is_read_without_tags_scripts_and_styles(tmp_path: Path) -> None:
    page = """<!DOCTYPE html><html><head><title>Heaps</title><style>p { color: red }</style>
        <script>if (a < b) { alert("no") }</script></head>
        <body><h1>A   heap</h1><!-- hidden --><p>is a <b>binary</b>
        tree&nbsp;&amp; more.<ul><li>push<li>pop</ul><pre>a = [1,
    2]</pre></body></html>"""
    document = read_document(write(tmp_path, "page.html", page))
    assert document.format is Format.HTML
    assert document.text.split("\n") == [
        *("Heaps", "", "A heap", "", "is a binary tree & more.", ""),
        *("push", "pop", "", "a = [1,", "    2]"),
    ]


@pytest.mark.parametrize("tail", ["", ">", "-->", "'>"])
@pytest.mark.parametrize("piece", ["<a ", "<a b='", "<!--", "</", "<![foo[", "<script>", "&#"])
def test_html_that_never_closes_what_it_opens_is_read_in_linear_time(piece: str, tail: str) -> None:
    """Where it is not, this takes minutes and runs into the time limit of the suite."""
    assert text_of_html("<p>before</p>" + piece * 50_000 + tail).startswith("before")


@given(st.lists(st.sampled_from([*"<>&!-/'\"[] \n=a", "<!--", "<![", "<?", "script", "pre", "p"])))
def test_any_html_gives_some_text(pieces: list[str]) -> None:
    assert isinstance(text_of_html("".join(pieces)), str)


def test_markdown_loses_its_marks_and_keeps_front_matter_and_code() -> None:
    source = """---
title: Heaps
---
# A *binary* heap #1

> quoted **[link](https://example.org "t")** and ![image](a.png) and `a*b*c`
Underlined
==========
```python
# kept *as* it is
```
my_own_name, __init__, 2 * 3 * 4
"""
    assert text_of_markdown(source).split("\n") == [
        "title: Heaps",
        "A binary heap #1",
        "",
        "quoted link and image and a*b*c",
        "Underlined",
        "# kept *as* it is",
        "my_own_name, __init__, 2 * 3 * 4",
        "",
    ]


@given(st.text(alphabet=st.sampled_from("ab*`[]()!#>-~=_ \n"), max_size=200))
def test_markdown_keeps_every_letter_but_addresses_and_the_names_of_languages(source: str) -> None:
    assume(not any(mark in source for mark in ("](", "```", "~~~")))
    letters = [letter for letter in source if letter in "ab"]
    kept = [letter for letter in text_of_markdown(source) if letter in "ab"]
    assert kept == letters


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (BOM_UTF8 + "naïve".encode(), "utf-8-sig"),
        ("naïve".encode("utf-16"), "utf-16"),
        ("naïve".encode(), "utf-8"),
    ],
)
def test_an_encoding_that_the_file_tells_is_used(
    tmp_path: Path, content: bytes, encoding: str
) -> None:
    document = read_document(write(tmp_path, "a.txt", content))
    assert (document.text, document.encoding, document.note) == ("naïve", encoding, "")


def test_what_is_not_utf_8_is_read_as_latin_1_with_a_note(tmp_path: Path) -> None:
    document = read_document(write(tmp_path, "a.txt", b"na\xefve"))
    assert (document.text, document.encoding) == ("naïve", "latin-1")
    assert "latin-1" in document.note


def test_python_is_read_in_the_encoding_it_declares(tmp_path: Path) -> None:
    source = "# -*- coding: koi8-r -*-\nname = 'куча'\n"
    document = read_document(write(tmp_path, "a.py", source.encode("koi8-r")))
    assert (document.text, document.encoding, document.note) == (source, "koi8-r", "")


@pytest.mark.parametrize("declared", ["no-such-codec", "rot13", "ascii"])
def test_python_that_declares_a_wrong_encoding_is_read_as_latin_1(
    tmp_path: Path, declared: str
) -> None:
    document = read_document(
        write(tmp_path, "a.py", f"# coding: {declared}\n'é'".encode("latin-1"))
    )
    assert document.text.endswith("'é'")
    assert document.note


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\n<!DOCTYPE HTML><p>x", Format.HTML),
        (b"#!/usr/bin/env python3\n", Format.PYTHON),
        (b"plain", Format.TEXT),
    ],
)
def test_a_file_without_extension_is_judged_by_its_content(
    tmp_path: Path, content: bytes, expected: Format
) -> None:
    assert read_document(write(tmp_path, "file", content)).format is expected


def test_the_name_of_an_uploaded_file_tells_its_format(tmp_path: Path) -> None:
    path = write(tmp_path, "0192f3a4", "# Title")
    assert read_document(path, "README.md").format is Format.MARKDOWN


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.pdf", b"%PDF-1.7", r"\.pdf is not a supported type"),
        ("a.txt", b"\x7fELF\x00\x01", "binary"),
        ("a.txt", b"\x1f\x8b\x08\xff\x02", "neither text nor UTF-8"),
        ("a.txt", b"\xff\xfe\x00\xd8", "not text"),
    ],
)
def test_a_file_that_is_no_document_is_refused(
    tmp_path: Path, name: str, content: bytes, complaint: str
) -> None:
    with pytest.raises(DocumentError, match=complaint):
        read_document(write(tmp_path, name, content))


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("missing.txt", "no such file"),
        ("file.txt/below.txt", "no such file"),
        (".", "not a regular file"),
        ("pipe.txt", "not a regular file"),
        ("a\0b.txt", "not a path"),
        ("\ud800.txt", "not a path"),
        ("a" * 300 + ".txt", "too long"),
    ],
)
def test_a_path_that_leads_to_no_file_is_refused(tmp_path: Path, path: str, complaint: str) -> None:
    write(tmp_path, "file.txt", "text")
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(DocumentError, match=complaint):
        read_document(f"{tmp_path}/{path}")


def test_a_file_over_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "BYTES_MAX", 10)
    assert read_document(write(tmp_path, "a.txt", "0123456789")).text == "0123456789"
    with pytest.raises(DocumentError, match="larger than 10 bytes"):
        read_document(write(tmp_path, "a.txt", "0123456789a"))


# --- the handlers ---------------------------------------------------------------------------


Reports = list[tuple[int, str]]


def context(kb_id: str = "kb", reports: Reports | None = None) -> Context:
    """The context of an attempt; what the handler reports is appended to `reports`."""
    kept = [] if reports is None else reports
    return Context(
        task_id="00000000-0000-7000-8000-000000000000",
        task_type="test",
        attempt=1,
        kb_id=kb_id,
        metadata=None,
        deadline_s=FAR_S,
        report=lambda percent, message: kept.append((percent, message)),
    )


def process(payload: dict[str, Any], kb_id: str = "kb") -> dict[str, Any]:
    return process_document(context(kb_id), payload)


def index(payload: dict[str, Any], kb_id: str = "kb") -> dict[str, Any]:
    return index_knowledge(context(kb_id), payload)


@pytest.fixture
def db(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The path of a database that is not there yet, and that the handlers use."""
    path = str(tmp_path / "knowledge.db")
    monkeypatch.setenv("KNOWLEDGE_DB", path)
    return path


def stored(db: str, path: str, kb_id: str = "kb") -> list[tuple[int, str]]:
    with open_store(db) as opened:
        return opened.chunks(kb_id, path)


def paths_found(db: str, query: str, kb_id: str = "kb", limit: int = 10) -> list[str]:
    return [Path(hit.path).name for hit in search(db, kb_id, query, limit)]


def assert_index_is_sound(db: str) -> None:
    """FTS5's own check of the index against the chunks; it raises where they differ."""
    with closing(sqlite3.connect(db)) as connection:
        connection.execute(
            "INSERT INTO chunk_index (chunk_index, rank) VALUES ('integrity-check', 1)"
        )


def test_a_document_is_split_and_stored(db: str, tmp_path: Path) -> None:
    text = "some words " * 30
    path = write(tmp_path, "a.txt", text)
    reports: Reports = []
    result = process_document(
        context("kb", reports), {"file_path": path, "chunk_size": 100, "chunk_overlap": 20}
    )
    assert stored(db, path) == [(chunk.start, chunk.text) for chunk in split(text, 100, 20)]
    assert result == {
        "chunks": 4,
        "characters": len(text),
        "format": "text",
        "encoding": "utf-8",
        "sha256": sha256(text.encode()).hexdigest(),
    }
    assert [percent for percent, _ in reports] == [10, 60]


def test_a_guessed_encoding_is_noted_in_the_result(db: str, tmp_path: Path) -> None:
    assert "latin-1" in process({"file_path": write(tmp_path, "a.txt", b"\xe9")})["note"]


def test_a_document_processed_twice_is_stored_once(db: str, tmp_path: Path) -> None:
    payload = {"file_path": write(tmp_path, "a.txt", "word " * 1000)}
    first = process(payload)
    before = stored(db, payload["file_path"])
    assert process(payload) == first
    assert stored(db, payload["file_path"]) == before


def test_a_document_processed_again_stays_indexed(db: str, tmp_path: Path) -> None:
    payload = {"file_path": write(tmp_path, "a.txt", "word " * 1000)}
    process(payload)
    index({})
    process(payload)
    assert index({})["indexed_documents"] == 0


def test_a_changed_document_replaces_the_chunks_it_had(db: str, tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", "old " * 1000)
    process({"file_path": path})
    write(tmp_path, "a.txt", "new")
    process({"file_path": path})
    assert stored(db, path) == [(0, "new")]


def test_another_spelling_of_a_path_is_the_same_document(db: str, tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", "text")
    process({"file_path": path})
    process({"file_path": f"{tmp_path}/../{tmp_path.name}/./a.txt"})
    assert index({})["documents"] == 1


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"file_path": None}, "file_path"),
        ({"file_path": "/no/such/file.txt"}, "no such file"),
        ({"chunk_size": 0}, "chunk_size"),
        ({"chunk_size": "10"}, "chunk_size"),
        ({"chunk_size": 10**9}, "chunk_size"),
        ({"chunk_overlap": -1}, "chunk_overlap"),
        ({"chunk_size": 100, "chunk_overlap": 100}, "chunk_overlap"),
    ],
)
def test_a_payload_that_cannot_work_fails_for_good(
    db: str, tmp_path: Path, change: dict[str, Any], complaint: str
) -> None:
    payload = {"file_path": write(tmp_path, "a.txt", "text")}
    with pytest.raises(PermanentError, match=complaint):
        process(payload | change)


def test_a_locked_database_fails_for_now(
    db: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    payload = {"file_path": write(tmp_path, "a.txt", "text")}
    process(payload)
    monkeypatch.setattr(store, "BUSY_TIMEOUT_S", 0.01)
    with closing(sqlite3.connect(db, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            process(payload)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            process_batch(context(), {"documents": [payload]})


def test_a_batch_does_what_it_can_and_lists_what_it_cannot(db: str, tmp_path: Path) -> None:
    good = [{"file_path": write(tmp_path, f"{n}.txt", "text")} for n in range(2)]
    reports: Reports = []
    payload = {"documents": [good[0], {"file_path": f"{tmp_path}/none.txt"}, "no object", good[1]]}
    result = process_batch(context("kb", reports), payload)
    assert (result["documents"], result["chunks"]) == (2, 2)
    assert [failure["index"] for failure in result["failed"]] == [1, 2]
    assert "no such file" in result["failed"][0]["error"]
    assert [percent for percent, _ in reports] == [25, 50, 75, 100]


def test_a_batch_of_which_nothing_can_be_processed_fails_for_good(db: str) -> None:
    with pytest.raises(PermanentError, match="all 2 documents failed"):
        process_batch(
            context(), {"documents": [{"file_path": "/no/1.txt"}, {"file_path": "/no/2.txt"}]}
        )


@pytest.mark.parametrize("payload", [{}, {"documents": []}, {"documents": "a"}])
def test_a_batch_of_nothing_fails_for_good(payload: dict[str, Any]) -> None:
    with pytest.raises(PermanentError, match="documents"):
        process_batch(context(), payload)


def test_a_canceled_batch_stops_before_its_next_document(db: str, tmp_path: Path) -> None:
    reports: Reports = []
    unwanted = context("kb", reports)
    unwanted.canceled.set()
    process_batch(unwanted, {"documents": [{"file_path": write(tmp_path, "a.txt", "text")}]})
    assert reports == []


# --- indexing -------------------------------------------------------------------------------


def test_indexing_takes_up_only_what_is_new_or_changed(db: str, tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        process({"file_path": write(tmp_path, name, "first text")})
    assert index({})["indexed_documents"] == 2

    process({"file_path": write(tmp_path, "a.txt", "second text")})
    process({"file_path": write(tmp_path, "c.txt", "third text")})
    assert index({}) == {
        "indexed_documents": 2,
        "added_chunks": 2,
        "removed_chunks": 1,
        "documents": 3,
        "chunks": 3,
    }
    assert index({})["indexed_documents"] == 0


def test_the_old_text_is_found_until_the_new_one_is_indexed(db: str, tmp_path: Path) -> None:
    process({"file_path": write(tmp_path, "a.txt", "walnut")})
    index({})
    process({"file_path": write(tmp_path, "a.txt", "hazelnut")})
    assert paths_found(db, "walnut") == ["a.txt"]
    index({})
    assert paths_found(db, "walnut") == []
    assert paths_found(db, "hazelnut") == ["a.txt"]


def test_rebuilding_one_knowledge_base_leaves_the_others_as_they_are(
    db: str, tmp_path: Path
) -> None:
    path = write(tmp_path, "a.txt", "walnut")
    process({"file_path": path}, "indexed")
    index({}, "indexed")
    process({"file_path": path}, "not indexed")
    process({"file_path": path}, "rebuilt")
    assert index({"rebuild": True}, "rebuilt")["added_chunks"] == 1
    found = [kb for kb in ("indexed", "not indexed", "rebuilt") if paths_found(db, "walnut", kb)]
    assert found == ["indexed", "rebuilt"]
    assert_index_is_sound(db)


words = st.sampled_from(["walnut", "hazelnut", "almond"])
process_steps = st.tuples(st.sampled_from("ab"), st.lists(words, max_size=12))
index_steps = st.fixed_dictionaries({"rebuild": st.booleans()})


@settings(max_examples=40, deadline=None)  # each example writes a database
@given(st.lists(process_steps | index_steps, max_size=8))
def test_after_any_history_the_index_finds_what_the_documents_hold(
    steps: list[tuple[str, list[str]] | dict[str, bool]],
) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        db = f"{folder}/knowledge.db"
        patch.setenv("KNOWLEDGE_DB", db)
        held: dict[str, list[str]] = {}
        for step in steps:
            if isinstance(step, dict):
                index(step)
            else:
                name, content = step
                path = write(Path(folder), name, " ".join(content))
                process({"file_path": path, "chunk_size": 40, "chunk_overlap": 10})
                held[name] = content
        index({})
        for word in ("walnut", "hazelnut", "almond"):
            assert set(paths_found(db, word)) == {name for name in held if word in held[name]}
        assert_index_is_sound(db)


# --- searching ------------------------------------------------------------------------------


@pytest.fixture
def library(db: str) -> str:
    """A knowledge base of the standard library's own modules, indexed."""
    files = [path for path in STDLIB.glob("*.py") if "queue" in path.name or path.name < "j"]
    files += [STDLIB / name for name in ("sched.py", "typing.py", "threading.py", "zipfile.py")]
    process_batch(context(), {"documents": [{"file_path": str(path)} for path in files]})
    index({})
    return db


def test_a_phrase_finds_the_module_that_is_about_it(library: str) -> None:
    hits = search(library, "kb", '"priority queue"', 5)
    assert "heapq.py" in [Path(hit.path).name for hit in hits]
    assert all("[" in hit.snippet for hit in hits)
    assert [hit.rank for hit in hits] == sorted(hit.rank for hit in hits)
    assert paths_found(library, "heappush nlargest", limit=1) == ["heapq.py"]


def test_a_phrase_is_not_the_same_as_its_words(db: str, tmp_path: Path) -> None:
    process({"file_path": write(tmp_path, "words.txt", "a queue without any priority")})
    process({"file_path": write(tmp_path, "phrase.txt", "Priority Queues are heaps")})
    index({})
    assert paths_found(db, '"priority queue"') == ["phrase.txt"]
    assert sorted(paths_found(db, "priority queue")) == ["phrase.txt", "words.txt"]


def test_a_document_is_one_hit_and_a_limit_is_kept(db: str, tmp_path: Path) -> None:
    for n in range(3):
        process({"file_path": write(tmp_path, f"{n}.txt", "walnut\n\n" * 500)})
    index({})
    assert sorted(paths_found(db, "walnut")) == ["0.txt", "1.txt", "2.txt"]
    assert len(paths_found(db, "walnut", limit=2)) == 2


def test_a_knowledge_base_finds_only_its_own(db: str, tmp_path: Path) -> None:
    process({"file_path": write(tmp_path, "a.txt", "walnut")}, "one")
    index({}, "one")
    assert paths_found(db, "walnut", "one") == ["a.txt"]
    assert paths_found(db, "walnut", "other") == []


@pytest.fixture(scope="module")
def small_library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("library")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KNOWLEDGE_DB", str(folder / "knowledge.db"))
        process({"file_path": write(folder, "a.txt", "to be or not to be")})
        index({})
    yield str(folder / "knowledge.db")


@settings(deadline=None)  # each example opens a database
@given(st.text() | st.text(alphabet=st.sampled_from("\"'*^():+-{}a \0.,;|&NEAR")))
def test_no_query_is_an_error(small_library: str, query: str) -> None:
    assert len(search(small_library, "kb", query)) <= 1


@pytest.mark.parametrize("query", ["OR", "not", "(be)", "be*", '"or not', "-be", "text:x or"])
def test_the_operators_of_the_index_are_plain_words(small_library: str, query: str) -> None:
    expected = ["a.txt"] if "x" not in query else []
    assert paths_found(small_library, query) == expected


def test_without_a_database_there_is_a_clear_error(db: str) -> None:
    with pytest.raises(FileNotFoundError, match="process a document first"):
        search(db, "kb", "walnut")
    assert not Path(db).exists()


# --- several workers ------------------------------------------------------------------------

DOCUMENTS = 20


def _start_together(barrier: "Barrier") -> None:
    barrier.wait(30)


def _write_documents(folder: str, writer: int) -> int:
    """What one worker process does: its own documents, and one that both write."""
    os.environ["KNOWLEDGE_DB"] = f"{folder}/knowledge.db"
    names = [f"{writer}-{n}.txt" for n in range(DOCUMENTS)]
    for name in names:
        write(Path(folder), name, f"walnut {name}\n" * 20)
        process({"file_path": f"{folder}/{name}", "chunk_size": 50, "chunk_overlap": 10})
        process({"file_path": f"{folder}/shared.txt"})
        index({})
    return len(names)


async def test_two_processes_write_and_index_at_once(tmp_path: Path) -> None:
    write(tmp_path, "shared.txt", "hazelnut")
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        2, mp_context=spawn, initializer=_start_together, initargs=(spawn.Barrier(2),)
    ) as pool:
        loop = asyncio.get_running_loop()
        done = [
            loop.run_in_executor(pool, _write_documents, str(tmp_path), writer)
            for writer in range(2)
        ]
        assert await asyncio.gather(*done) == [DOCUMENTS, DOCUMENTS]
    db = str(tmp_path / "knowledge.db")
    assert len(paths_found(db, "walnut", limit=100)) == 2 * DOCUMENTS
    assert stored(db, str(tmp_path / "shared.txt")) == [(0, "hazelnut")]
    assert_index_is_sound(db)
