"""What is handed over: a submission, and many of them in requests that the service takes."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final, TypedDict, TypeVar

import msgspec

from api.client.json_text import json_of

BATCH_ITEMS_MAX: Final = 1_000
BATCH_BYTES_MAX: Final = 16 * 1024 * 1024
"""Well under what a service takes at most, so that one request is answered soon."""

ENVELOPE_BYTES: Final = 2
"""The brackets of a JSON array; each item brings a comma."""

Item = TypeVar("Item")


class Options(TypedDict, total=False):
    """What a submission may say beside type, kb_id and payload. The service has the defaults."""

    priority: str
    """low, normal, high or critical."""
    max_retries: int
    timeout: int
    """Seconds for an attempt."""
    schedule_for: datetime | str
    """Not before this time; with an offset."""
    callback_url: str
    metadata: Mapping[str, Any]


class Submission(msgspec.Struct, frozen=True, omit_defaults=True):
    """A task to be. `payload` may be a `msgspec.Raw`, whose bytes go out as they are."""

    task_type: str
    kb_id: str
    payload: Mapping[str, Any] | msgspec.Raw = {}
    priority: str | msgspec.UnsetType = msgspec.UNSET
    max_retries: int | msgspec.UnsetType = msgspec.UNSET
    timeout: int | msgspec.UnsetType = msgspec.UNSET
    schedule_for: datetime | str | msgspec.UnsetType = msgspec.UNSET
    callback_url: str | msgspec.UnsetType = msgspec.UNSET
    metadata: Mapping[str, Any] | msgspec.UnsetType = msgspec.UNSET

    def encoded(self, name: str = "") -> bytes:
        """Its JSON. Raises TypeError and ValueError for what JSON does not have, by where that
        stands; `name` is what the submission itself is called there."""
        fields = {name: getattr(self, name) for name in self.__struct_fields__}
        return json_of({k: v for k, v in fields.items() if v is not msgspec.UNSET}, name)


def encoded(given: Iterable[Submission]) -> Iterator[bytes]:
    """The JSON of each. Raises as that does, and TypeError for what is none."""
    each: Any
    for index, each in enumerate(given):
        name = f"submissions[{index}]"
        if not isinstance(each, Submission):
            raise TypeError(f"{name}: expected a Submission, got {type(each).__name__}")
        yield each.encoded(name)


def chunks(
    items: Iterable[Item], items_max: int, bytes_max: int, json_of: Callable[[Item], bytes]
) -> Iterator[list[Item]]:
    """Submissions in lists that fit into one request each; `json_of` is what is sent of one."""
    chunk: list[Item] = []
    size = ENVELOPE_BYTES
    for item in items:
        item_bytes = len(json_of(item)) + 1
        if chunk and (len(chunk) == items_max or size + item_bytes > bytes_max):
            yield chunk
            chunk, size = [], ENVELOPE_BYTES
        chunk.append(item)
        size += item_bytes
    if chunk:
        yield chunk
