"""Task ids: what they look like, where they lead, and how an Idempotency-Key makes one."""

import hashlib
import re
from typing import Final

SYSTEM: Final = "system"
"""The subject of events that belong to no task. It lives in partition 0."""

_is_uuid: Final = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
).fullmatch


def is_task_id(text: str) -> bool:
    """Whether `text` is a lower-case UUID string, as every task id is."""
    return _is_uuid(text) is not None


def is_derived(task_id: str) -> bool:
    """Whether a task's id is made of an Idempotency-Key: it may be met again, however late."""
    return task_id[14:15] == "8"


def partition_of(task_id: str, partitions: int) -> int:
    """The partition that a task lives in, for good: its last 16 bits, modulo `partitions`.
    Also that of SYSTEM.

    Those bits are random in a version 7 UUID (RFC 9562, section 5.7) and a hash in our version 8.
    """
    return 0 if task_id == SYSTEM else int(task_id[-4:], 16) % partitions


def derived_id(kb_id: str, idempotency_key: str, index: int | None = None) -> str:
    """The id of the task that `idempotency_key` names within `kb_id`: always the same one.

    A version 8 UUID (RFC 9562, section 5.8) of SHA-256 over the length-prefixed parts. `index` is
    the item's place among those of its kb_id in a batch that was sent under one key.
    """
    parts = [kb_id, idempotency_key] if index is None else [kb_id, idempotency_key, str(index)]
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(4, "big"))
        digest.update(encoded)
    value = bytearray(digest.digest()[:16])
    value[6] = (value[6] & 0x0F) | 0x80
    value[8] = (value[8] & 0x3F) | 0x80
    text = value.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
