"""What commands that check something end with, beside 0 (it is as it should be)."""

from typing import Final

TAMPERED: Final = 1
"""It was altered; also any other failure, as of other commands."""

INCOMPLETE: Final = 3
"""Something of it is not there, or not yet."""

UNCHECKED: Final = 4
"""It could not be checked: a file, a key or a service is out of reach."""
