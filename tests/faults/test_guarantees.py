"""What docs/guarantees.md says is shown by tests is shown by tests that exist."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "guarantees.md").read_text()
PROMISES = (
    "An acknowledged task is never lost",
    "Outages end by themselves",
    "Each change happens once",
    "Submitting twice makes one task",
    "Work is done at least once, and counts once",
    "Who follows the ledger misses nothing",
    "Time-outs and cancels stop the handler",
    "The end of a task is told at least once",
    "Order",
    "Bounds",
)


def test_every_test_that_is_named_exists() -> None:
    named = [
        (path, name)
        for path, names in re.findall(r"\]\(\.\./(tests/\S+?\.py)\):((?:\s+`test_\w+`,?;?)+)", TEXT)
        for name in re.findall(r"test_\w+", names)
    ]

    assert len(named) == len(re.findall(r"`test_\w+`", TEXT)), "a test is named without its file"
    for path, name in named:
        assert f"def {name}(" in (DOCS.parent / path).read_text(), f"{path} has no {name}"


def test_every_promise_names_its_tests() -> None:
    sections = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL))

    assert [promise for promise in PROMISES if "Shown by" not in sections[promise]] == []


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", TEXT):
        assert (DOCS / target).exists(), target
