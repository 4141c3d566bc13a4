"""Tables on terminals of any width: what has to be copied is never cut."""

import pytest

from api.cli.list import HEADINGS, LEAST
from api.cli.output import counted, print_table

ID = "01890a5d-ac96-774b-bcce-b302099a8057"
ROW = (ID, "document_processing", "kb-1", "processing", "normal", "2030-01-31T09:30:00.000Z", "")
FAILED = (*ROW[:3], "failed", *ROW[4:6], "the connection was refused by the vector store " * 2)


@pytest.fixture(params=[40, 60, 80, 100, 130, 200])
def width(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Of the terminal."""
    monkeypatch.setattr("api.cli.output.on_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", str(request.param))
    return request.param


@pytest.mark.parametrize(
    ("n", "words", "told"),
    [
        (1, ("task",), "1 task"),
        (0, ("task",), "0 tasks"),
        (1_000, ("task",), "1,000 tasks"),
        (1, ("entry", "entries"), "1 entry"),
        (2, ("entry", "entries"), "2 entries"),
    ],
)
def test_one_is_not_several(n: int, words: tuple[str, ...], told: str):
    assert counted(n, *words) == told


@pytest.mark.parametrize("rows", [[ROW], [ROW, FAILED]])
def test_id_and_status_are_never_cut(
    width: int, rows: list[tuple[str, ...]], capsys: pytest.CaptureFixture[str]
):
    print_table(HEADINGS, rows, least=LEAST)

    out = capsys.readouterr().out
    words = out.split()
    assert words.count(ID) == len(rows) or width < len(ID) + 10
    assert all(row[3] in words for row in rows)
    assert max(map(len, out.splitlines())) <= width
    assert "…" not in out


def test_columns_are_left_out_one_by_one(width: int, capsys: pytest.CaptureFixture[str]):
    print_table(HEADINGS, [ROW], least=LEAST)

    out = capsys.readouterr().out
    # At 40 it is a block, in which what is empty has no line.
    left_out = {40: "error", 60: "type kb priority created", 80: "kb priority created"}
    left_out |= {100: "created", 130: "", 200: ""}
    for heading in HEADINGS:
        assert (heading not in out.split()) == (heading in left_out[width].split())


def test_plain_lines_have_neither_headings_nor_a_width(capsys: pytest.CaptureFixture[str]):
    print_table(HEADINGS, [FAILED], least=LEAST)

    [line] = capsys.readouterr().out.splitlines()
    assert line.split()[:2] == [ID, "document_processing"]
    assert line.endswith("vector store")
