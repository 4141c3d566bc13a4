"""`ledgerq settings`: every value, and where it comes from."""

from pathlib import Path

import pytest

from ledger.knobs import KNOBS
from tests.cli.running import Call


def test_each_setting_says_where_it_comes_from(
    ledgerq: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "ledgerq.toml").write_text("workers = 3\nport = 1\n")
    monkeypatch.setenv("LEDGERQ_PORT", "9000")

    rows = {row["name"]: row for row in ledgerq("settings", "--json").json()}

    assert list(rows) == list(KNOBS)
    assert (rows["port"]["value"], rows["port"]["source"]) == (9000, "environment LEDGERQ_PORT")
    assert rows["url"]["value"] == "http://127.0.0.1:9000"
    assert rows["workers"]["value"] == 3
    assert rows["workers"]["source"] == f"file {tmp_path / 'ledgerq.toml'}"
    assert rows["lease_ms"] == {
        "name": "lease_ms",
        "value": 15_000,
        "source": "default",
        "variable": "LEDGERQ_LEASE_MS",
        "description": KNOBS["lease_ms"].description,
    }


def test_plain_lines_are_for_programs(ledgerq: Call):
    ran = ledgerq("settings")

    assert ran.code == 0
    assert ["port", "8084", "default"] in [line.split() for line in ran.out.splitlines()]


@pytest.mark.parametrize("words", [("settings",), ("settings", "--json")])
def test_a_password_is_not_shown(
    ledgerq: Call, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
):
    monkeypatch.setenv("LEDGERQ_REDIS_URL", "redis://user:swordfish@host/0")

    ran = ledgerq(*words)

    assert "swordfish" not in ran.out
    assert "host/0" in ran.out


def test_every_mistake_is_told(ledgerq: Call, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LEDGERQ_PORT", "many")
    monkeypatch.setenv("LEDGERQ_WORKES", "2")

    ran = ledgerq("settings")

    assert ran.code == 1
    assert "port: expected a whole number from 0 to 65535, got 'many'" in ran.err
    assert "LEDGERQ_WORKES: no such setting; the closest is LEDGERQ_WORKERS" in ran.err


@pytest.mark.parametrize("words", [("settings",), ("settings", "--json")])
def test_keys_are_not_shown(ledgerq: Call, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]):
    key = "c3dvcmRmaXNoIHN3b3JkZmlzaCBzd29yZGZpc2g="
    monkeypatch.setenv("LEDGERQ_CALLBACK_SECRETS", f"whsec_{key}")

    ran = ledgerq(*words)

    assert key not in ran.out
    assert "whsec_***" in ran.out


def test_what_was_meant_to_be_a_key_is_not_shown(ledgerq: Call, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LEDGERQ_CALLBACK_SECRETS", "swordfish")

    ran = ledgerq("settings")

    assert ran.code == 1
    assert "callback_secrets: expected a list of keys that begin with whsec_" in ran.err
    assert "swordfish" not in ran.err
