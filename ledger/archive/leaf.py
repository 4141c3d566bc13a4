"""A leaf of the log: who, what and when of one event, as canonical JSON (RFC 8785).

    {"at":…,"data":"…","entry":"…","meta":{…},"prev":"…","prev_entry":"…","task":"…","type":"…",
     "v":1,"version":…}

`data` is SHA-256 of the salt and the event's data, which lie beside the leaf: erasing them leaves
the tree as it is. `prev` is the hash of the leaf of the task's previous event, so that whoever has
a task's last leaf can tell whether he has them all.
"""

import base64
import hashlib
import re
from binascii import hexlify
from typing import Final

import msgspec

from ledger.archive.tiles import ENTRY_BYTES_MAX
from ledger.codec import Meta, encode
from ledger.moments import LAST_MS
from ledger.store import VERSION_MAX, Position, Recorded

PLAIN_TYPES: Final = frozenset(
    {
        "TaskReleased",
        "TaskStarted",
        "RetryScheduled",
        "TaskRetried",
        "CallbackDelivered",
        "QueueResumed",
        "LimitSet",
        "LimitRemoved",
    }
)
"""Events whose data is none of the caller's, so that nobody has to be kept from guessing it."""

_HEX_BYTES: Final = 32
_LEAF: Final = (
    b'{"at":%d,"data":"%b","entry":"%b","meta":%b,"prev":"%b","prev_entry":%b,"task":"%b",'
    b'"type":%b,"v":1,"version":%d}'
)
_ENTRY: Final = b'"entry":"'


class _CanonicalMeta(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """`Meta` with its fields in canonical order."""

    actor: str = ""
    commit: str = ""
    request: str = ""
    trace: str = ""


class _Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    at: int
    data: str
    entry: str
    meta: _CanonicalMeta | str
    prev: str
    prev_entry: str
    task: str
    type: str
    v: int
    version: int


_is_canonical_meta: Final = re.compile(
    rb'\{(?:"actor":"[0-9A-Za-z._:@/-]+"(?:,"commit":"[0-9a-f-]+")?|"commit":"[0-9a-f-]+")\}'
).fullmatch
"""Most are."""

_plain_meta: Final = re.compile(
    rb'\{("actor":"[0-9A-Za-z._:@/-]+")(,"request":"[0-9A-Za-z._:@/-]+")?'
    rb'(,"trace":"[0-9a-f-]+")?(,"commit":"[0-9a-f-]+")?\}'
).fullmatch
"""Nothing in them could be written otherwise, but for the order."""

_decode_meta = msgspec.json.Decoder(Meta).decode
_decode_envelope = msgspec.json.Decoder(_Envelope).decode


class Leaf(msgspec.Struct, frozen=True, gc=False):
    """What a leaf says. Hashes are bytes; `prev` is empty for a task's first event, and for the
    first one that the archive ever saw of it."""

    position: Position
    type: str
    task_id: str
    version: int
    at: int
    meta: bytes
    prev: bytes
    prev_entry: str
    data_hash: bytes

    def recorded(self, data: bytes) -> Recorded:
        """The event, as it stood in the ledger."""
        return Recorded(
            self.position,
            self.type,
            self.task_id,
            self.version,
            self.at,
            data,
            self.meta,
            self.prev_entry,
        )


class NoLeaf(ValueError):
    """Bytes that are no leaf of ours; says why."""


def data_hash(salt: bytes, data: bytes) -> bytes:
    """What a leaf has of an event's data."""
    return hashlib.sha256(salt + data).digest()


def pack_leaf(event: Recorded, prev: bytes, hashed: bytes) -> bytes:
    """The leaf of an event. Raises NoLeaf for a time or version that none has, and where it would
    be longer than ENTRY_BYTES_MAX."""
    at, version = event.at, event.version
    if not (0 <= at <= LAST_MS and 0 < version <= VERSION_MAX):
        raise NoLeaf(f"{event.position}: its time or version is out of range")
    entry = _LEAF % (
        at,
        hexlify(hashed),
        event.position.entry.encode(),
        _canonical_meta(event.meta),
        hexlify(prev),
        encode(event.prev),
        event.task_id.encode(),
        encode(event.type),
        version,
    )
    if len(entry) > ENTRY_BYTES_MAX:
        raise NoLeaf(f"{event.position}: its leaf would have {len(entry)} bytes")
    return entry


def entry_of(entry: bytes) -> str:
    """Where the event of a leaf stands in its partition, without a look at the rest of the leaf."""
    first = entry.index(_ENTRY) + len(_ENTRY)
    return entry[first : entry.index(b'"', first)].decode()


def unpack_leaf(partition: int, entry: bytes) -> Leaf:
    """What a leaf says. Raises NoLeaf."""
    try:
        return _leaf_of(partition, _decode_envelope(entry))
    except (ValueError, RecursionError) as error:
        raise NoLeaf(f"no leaf of an event: {error}") from error


def unpack_canonical_leaf(partition: int, entry: bytes) -> Leaf:
    """As `unpack_leaf`; raises NoLeaf also for a leaf that `pack_leaf` would write otherwise."""
    try:
        found = _decode_envelope(entry)
        leaf = _leaf_of(partition, found)
    except (ValueError, RecursionError) as error:
        raise NoLeaf(f"no leaf of an event: {error}") from error
    is_canonical = (
        encode(found) == entry
        and leaf.data_hash.hex() == found.data
        and leaf.prev.hex() == found.prev
        and (not isinstance(found.meta, str) or _canonical_meta(leaf.meta) == encode(found.meta))
    )
    if not is_canonical:
        raise NoLeaf("its leaf is not written as it must be")
    return leaf


def _leaf_of(partition: int, found: _Envelope) -> Leaf:
    """Raises ValueError."""
    hashed, prev = bytes.fromhex(found.data), bytes.fromhex(found.prev)
    meta = found.meta
    if isinstance(meta, str):
        stored = base64.b64decode(meta, validate=True)
    else:
        stored = encode(Meta(meta.actor, meta.request, meta.trace, meta.commit))
    if found.v != 1 or len(hashed) != _HEX_BYTES or len(prev) not in (0, _HEX_BYTES):
        raise ValueError("its format or its hashes are not ours")
    if not (0 <= found.at <= LAST_MS and 0 < found.version <= VERSION_MAX):
        raise ValueError("its time or version is out of range")
    return Leaf(
        Position.at(partition, found.entry),
        found.type,
        found.task,
        found.version,
        found.at,
        stored,
        prev,
        found.prev_entry,
        hashed,
    )


def _canonical_meta(stored: bytes) -> bytes:
    """As an object where that gives the same bytes back, else as a string of them in base64."""
    if _is_canonical_meta(stored):
        return stored
    plain = _plain_meta(stored)
    if plain is not None:
        actor, request, trace, commit = plain.groups(b"")
        return b"{%b%b%b%b}" % (actor, commit, request, trace)
    try:
        meta = _decode_meta(stored)
        if encode(meta) == stored:
            return encode(_CanonicalMeta(meta.actor, meta.commit, meta.request, meta.trace))
    except (ValueError, RecursionError):
        pass
    return b'"%b"' % base64.b64encode(stored)
