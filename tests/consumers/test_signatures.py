"""The keys that callbacks are signed with."""

from pathlib import Path

import pytest

from consumers.signatures import secret_file, signing_secrets
from ledger.settings import Settings
from ledger.settings_sources import SettingsError


def test_the_key_that_was_made_is_found_again(tmp_path: Path):
    settings = Settings(data_dir=str(tmp_path))

    made = signing_secrets(settings)

    assert signing_secrets(settings) == made
    assert secret_file(settings).read_text().strip() == made[0]


@pytest.mark.parametrize(
    "content", ["", "a key", "whsec_", f"whsec_{'a' * 16}", f"whsec_{'a' * 33}", "a" * 32]
)
def test_a_file_of_another_kind_is_named_and_left(tmp_path: Path, content: str):
    settings = Settings(data_dir=str(tmp_path))
    secret_file(settings).write_text(content)

    with pytest.raises(SettingsError) as refused:
        signing_secrets(settings)

    assert str(secret_file(settings)) in str(refused.value)
    assert "24 to 64 bytes in base64" in str(refused.value)
    assert secret_file(settings).read_text() == content
