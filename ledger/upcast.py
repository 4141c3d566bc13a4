"""Old shapes of stored events, lifted to the present ones.

When the shape of an event changes, a function is added here under its stored name that takes the
old fields and gives the new ones, and the old golden file stays. Nothing has changed yet, so the
table is empty; `codec.decode_event` consults it all the same, and a test drives it.
"""

from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Raw

Upcaster = Callable[[dict[str, Raw]], tuple[str, dict[str, Any]]]
"""Takes the fields of a stored event, gives its present name and fields.

Each field comes as the JSON that is stored; handing it on as it is keeps a payload's bytes. New
values may be anything that JSON can hold.
"""

UPCASTERS: Mapping[str, Upcaster] = {}
"""By stored event name. An event whose name is here is always lifted before it is decoded."""
