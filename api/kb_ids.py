"""What names a knowledge base."""

import unicodedata
from typing import Final

KB_ID_CHARACTERS_MAX: Final = 255
KB_ID_EXPECTED: Final = (
    f"text of 1 to {KB_ID_CHARACTERS_MAX} characters, without control characters"
)


def is_kb_id(text: str) -> bool:
    """Whether `text` may name a knowledge base."""
    if not 1 <= len(text) <= KB_ID_CHARACTERS_MAX:
        return False
    return text.isprintable() or all(unicodedata.category(char) != "Cc" for char in text)
