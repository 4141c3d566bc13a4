"""Checkpoints as text."""

import pytest

from ledger.archive.checkpoint import Checkpoint, NoCheckpoint
from ledger.archive.merkle import EMPTY_ROOT

ROOT = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
TEXT = f"ledgerq/e/0\n7\n{ROOT}\nindex {ROOT}\nlast 1763811000123-0\n"


def test_a_checkpoint_says_up_to_where_the_log_goes() -> None:
    checkpoint = Checkpoint("ledgerq/e/0", 7, EMPTY_ROOT, EMPTY_ROOT, "1763811000123-0")

    assert checkpoint.text == TEXT
    assert Checkpoint.parse(TEXT) == checkpoint


def test_an_empty_log_has_no_last_event() -> None:
    checkpoint = Checkpoint("ledgerq/e/0", 0, EMPTY_ROOT, EMPTY_ROOT)

    assert Checkpoint.parse(checkpoint.text) == checkpoint


@pytest.mark.parametrize(
    "text",
    [
        TEXT + "\n",
        TEXT + "more\n",
        TEXT[:-1],
        TEXT.replace("last ", ""),
        TEXT.replace("123-0", "123"),
        TEXT.replace("123-0", "123-00"),
        TEXT.replace("\n7\n", "\n07\n"),
        TEXT.replace("index ", ""),
        TEXT.replace("FU=\n", "FV=\n"),
        TEXT.replace("FU=\n", "Fé=\n"),
    ],
)
def test_other_text_is_no_checkpoint(text: str) -> None:
    with pytest.raises(NoCheckpoint):
        Checkpoint.parse(text)
