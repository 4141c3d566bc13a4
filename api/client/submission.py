"""What is handed over: a submission, and many of them in requests that the service takes."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final, TypedDict, TypeVar

import msgspec

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

    def encoded(self) -> bytes:
        """Its JSON. Raises TypeError for what JSON cannot hold."""
        fields = {name: getattr(self, name) for name in self.__struct_fields__}
        return msgspec.json.encode({k: v for k, v in fields.items() if v is not msgspec.UNSET})


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
