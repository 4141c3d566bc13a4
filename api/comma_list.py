"""A list of values in one text, as query parameters and flags have it.

Values are separated by commas, also where those were percent-encoded, as many clients do. A comma
that belongs to a value therefore stands behind a backslash, and a backslash may: it must where the
value goes on with a comma or a backslash, or ends.
"""

import re
from collections.abc import Iterable
from typing import Final

_VALUE: Final = re.compile(r"(?:^|,)((?:\\[\\,]|[^,])*)")
_ESCAPED: Final = re.compile(r"\\([\\,])")


def values_of(text: str) -> list[str]:
    """The values, at least one."""
    return [_ESCAPED.sub(r"\1", value) for value in _VALUE.findall(text)]


def text_of(values: Iterable[str]) -> str:
    """The text that `values_of` makes the values of."""
    return ",".join(value.replace("\\", "\\\\").replace(",", "\\,") for value in values)
