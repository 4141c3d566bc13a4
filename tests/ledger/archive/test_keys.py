"""The file with the archive's keys."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ledger.archive.keys import BadKeyFile, KeyFile
from tests.ledger.archive.sealed import key_file


def test_keys_that_are_added_at_once_are_all_there(tmp_path: Path) -> None:
    path = key_file(tmp_path).path
    with ThreadPoolExecutor(8) as threads:
        rotated = list(threads.map(KeyFile.rotate, [KeyFile(path) for _ in range(24)]))

    seeds = KeyFile(path).keys().seeds
    assert len(seeds) == 25
    assert {keys.seeds[-1] for keys in rotated} == set(seeds[1:])


def test_a_file_that_others_may_use_is_named_with_its_mode(tmp_path: Path) -> None:
    file = key_file(tmp_path)
    assert file.exposed() is None

    for mode in (0o644, 0o640, 0o444, 0o602):
        file.path.chmod(mode)
        exposed = file.exposed() or ""
        assert f"mode {mode:04o}" in exposed and "chmod 600" in exposed


def test_where_there_is_no_file_it_says_which(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "none" / "archive.key")
    for wish in (file.keys, file.rotate, file.exposed):
        with pytest.raises(BadKeyFile, match=r"archive\.key: No such file"):
            wish()
