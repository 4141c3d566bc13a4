"""Old shapes of stored events, lifted to the present ones.

When the shape of an event changes, a function is added here under its stored name that takes the
old fields and gives the new ones, and the old golden file stays. Nothing has changed yet, so the
table is empty; `codec.decode_event` consults it all the same, and a test drives it.
"""

from collections.abc import Callable, Mapping
from typing import Any

Upcaster = Callable[[dict[str, Any]], tuple[str, dict[str, Any]]]
"""Takes the fields of a stored event, gives its present name and fields."""

UPCASTERS: Mapping[str, Upcaster] = {}
"""By stored event name. An event whose name is here is always lifted before it is decoded."""
