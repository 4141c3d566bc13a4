"""How old an event has to be before anybody outside acts on it."""

from typing import Final

from ledger.settings import Durability, Settings

SETTLE_EVERYSEC_MS: Final = 2_000
"""By then the server has synced what it was given, where it does so once a second."""


def settle_ms(settings: Settings) -> int:
    """So old, it is as durable as the settings say."""
    return SETTLE_EVERYSEC_MS if settings.durability is Durability.EVERYSEC else 0
