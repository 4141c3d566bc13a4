"""Answers of the read model, as commands print them; what they lack is said aside."""

import sys
from collections.abc import Callable
from typing import TypeVar

import msgspec

from api.cli.answers import Answer
from api.cli.output import print_json

Content = TypeVar("Content")


def print_answer(
    answer: Answer, kind: type[Content], show: Callable[[Content], None], *, as_json: bool
) -> None:
    """The answer as the service sent it, or what `show` makes of it."""
    if as_json:
        print_json(answer.json)
    else:
        show(msgspec.json.decode(answer.json, type=kind))
    say_how_old(answer)


def say_how_old(answer: Answer) -> None:
    """On standard error, when the answer does not tell all that has happened."""
    if answer.behind_ms:
        sys.stderr.write(
            f"ledgerq: this is {answer.behind_ms / 1000:,.1f} s older than the ledger's last event:"
            " the read model has not caught up, see `ledgerq doctor`\n"
        )
