"""Signs callbacks as Standard Webhooks say, and finds the keys to do it with.

Without keys in the settings one is made in the data directory, where those who verify may read it.
"""

import base64
import contextlib
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec
from standardwebhooks import Webhook

from ledger.settings import CallbackSecret, Settings
from ledger.settings_sources import SettingsError

KEY_FILE_NAME: Final = "callback-secret"
"""The file in the data directory; one key in it."""

NO_KEY: Final = "it holds no key that begins with whsec_ and goes on with 24 to 64 bytes in base64"

SECRET_BYTES: Final = 32


class Signer:
    """Signs with every key, so that a receiver may have any of them: keys are changed by adding the
    new one, then giving it to the receivers, then taking the old one away."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._webhooks = [Webhook(secret) for secret in secrets]

    def headers(self, message_id: str, moment: datetime, body: bytes) -> Mapping[str, str]:
        """The headers that go with a message."""
        text = body.decode()
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(int(moment.timestamp())),
            "webhook-signature": " ".join(w.sign(message_id, moment, text) for w in self._webhooks),
        }


def secret_file(settings: Settings) -> Path:
    """Where the key is that was made for lack of others."""
    return Path(settings.data_dir) / KEY_FILE_NAME


def signing_secrets(settings: Settings) -> tuple[str, ...]:
    """The keys: those of the settings, else the one in the data directory, made if need be.

    Raises SettingsError when there is none to be had.
    """
    if settings.callback_secrets:
        return settings.callback_secrets
    path = secret_file(settings)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _make(path)
        secret = msgspec.convert(path.read_text().strip(), CallbackSecret)
        Webhook(secret)
    except (OSError, ValueError, msgspec.ValidationError) as error:
        reason = error.strerror if isinstance(error, OSError) else NO_KEY
        raise SettingsError(
            [f"callback_secrets: none is set, and {path} cannot be used: {reason}"]
        ) from error
    return (secret,)


def _make(path: Path) -> None:
    """Written aside, then linked into place: nobody ever sees half a key, and the first one made
    is the one that counts."""
    if path.exists():
        return
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    secret = "whsec_" + base64.b64encode(os.urandom(SECRET_BYTES)).decode()
    with contextlib.suppress(FileNotFoundError):
        fresh.unlink()
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{secret}\n")
        file.flush()
        os.fsync(descriptor)
    with contextlib.suppress(FileExistsError):
        os.link(fresh, path)
    fresh.unlink()
