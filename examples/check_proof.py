"""Checks a proof of a task's history, without ledgerq: `python check_proof.py FILE --key KEY`.

Needs Python 3.11 and the package `cryptography`, for Ed25519. It shares no code with ledgerq, so
that one can be held against the other; docs/proofs.md says what is checked and how it is written.

Exit code: 0 the proof holds; 1 it does not; 3 it holds, but the beginning of the history was never
logged; 4 the file or a key cannot be read.
"""

import argparse
import base64
import hashlib
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

Key = tuple[str, bytes]
"""A name, and behind a byte for its kind, a public key."""
SIGNS, COSIGNS = 1, 4
LAST_MS = 253_402_300_799_999
"""The end of the year 9999."""

PROOF = {
    **{"format": str, "task": str, "checkpoint": str, "keys": list},
    **{"events": list, "hashes": list, "segments": list},
}
EVENT = {"index": int, "leaf": str, "salt": str, "data": str, "data_base64": str, "erased": bool}
SEGMENT = {"records": int, "places": list, "hashes": list}
PLACE = {"number": int, "record": str}
CHECKPOINT = r"(ledgerq/[^/\s]+/\d+)\n(0|[1-9]\d*)\n(\S+)\nindex (\S+)(?:\nlast (\d+-\d+))?"


class Wrong(Exception):
    """The proof does not hold; says why."""


class Unusable(ValueError):
    """A key that cannot be read; says which."""


def require(condition: object, message: str) -> None:
    if not condition:
        raise Wrong(message)


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def leaf_hash(entry: bytes) -> bytes:
    return sha256(b"\0" + entry)


def decoded(text: str, length: int | None = None) -> bytes:
    """Base64, where it is written in the one way to write it."""
    raw = base64.b64decode(text, validate=True)
    require(base64.b64encode(raw).decode() == text, f"{text[:20]!r} is not canonical base64")
    require(length in (None, len(raw)), f"expected {length} bytes, got {len(raw)}")
    return raw


def root_of(size: int, leaves: Mapping[int, bytes], hashes: Sequence[str]) -> bytes:
    """The root of a tree (RFC 6962), from some leaves (number: hash) and the roots of the largest
    subtrees that have none of them, from left to right."""
    left = [decoded(each, 32) for each in reversed(hashes)]

    def within(start: int, end: int) -> bytes:
        if not any(start <= number < end for number in leaves):
            require(left, "there are too few hashes")
            return left.pop()
        if end - start == 1:
            return leaves[start]
        # The left side is the largest power of two that is smaller than the whole.
        middle = start + (1 << ((end - start - 1).bit_length() - 1))
        return sha256(b"\1" + within(start, middle) + within(middle, end))

    require(all(0 <= number < size for number in leaves), f"leaves outside of a tree of {size}")
    root = within(0, size) if size else sha256(b"")
    require(not left, "there are too many hashes")
    return root


# -- the checkpoint: a signed note (c2sp.org/signed-note, c2sp.org/tlog-checkpoint) ---------------


def parse_key(vkey: str) -> Key:
    """A key from `NAME+ID+BASE64`."""
    name, _, rest = vkey.strip().partition("+")
    try:
        key = name, base64.b64decode(rest.partition("+")[2], validate=True)
    except ValueError:
        key = name, b""
    if len(key[1]) != 33 or key[1][0] not in (SIGNS, COSIGNS) or vkey_of(key) != vkey.strip():
        raise Unusable(f"expected a key such as NAME+1234abcd+BASE64, got {vkey[:80]!r}")
    return key


def keys_of(given: str) -> list[str]:
    return Path(given[1:]).read_text().split() if given.startswith("@") else [given]


def key_id(key: Key) -> bytes:
    return sha256(f"{key[0]}\n".encode() + key[1])[:4]


def vkey_of(key: Key) -> str:
    return f"{key[0]}+{key_id(key).hex()}+{base64.b64encode(key[1]).decode()}"


def signers_of(note: str, keys: Sequence[Key]) -> list[Key]:
    """Who signed a note. All signatures must be by these keys, and be good."""
    text, _, below = note.rpartition("\n\n")
    require(below.endswith("\n"), "expected text, an empty line and signatures")
    found: list[Key] = []
    for line in below[:-1].split("\n"):
        _, name, encoded = [*line.split(" "), "", ""][:3]
        require(line == f"\u2014 {name} {encoded}", f"{line[:60]!r} is no signature")
        raw, message = decoded(encoded), f"{text}\n".encode()
        own = [key for key in keys if (key[0], key_id(key)) == (name, raw[:4])]
        require(own and own[0] not in found, f"a signature by {name} is of an unknown key")
        kind, public = own[0][1][0], own[0][1][1:]
        if kind == COSIGNS:  # c2sp.org/tlog-cosignature: a time stands before the signature
            at_s = int.from_bytes(raw[4:12], "big")
            message = f"cosignature/v1\ntime {at_s}\n".encode() + message
        try:
            signature = raw[12:] if kind == COSIGNS else raw[4:]
            Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
        except InvalidSignature:
            raise Wrong(f"a signature by {name} is not of its text") from None
        found.append(own[0])
    return found


def keys_led_to(proof: Mapping[str, Any], origin: str, trusted: Sequence[Key]) -> list[list[Key]]:
    """The keys of the log that took one another's place, the first one first: each note names two,
    and is signed by both. And the witnesses that one of the log's keys names."""
    led_to: list[Key] = []
    witnesses: dict[str, Key] = {}
    for note in proof["keys"]:
        kind, name, key, *before = note.rpartition("\n\n")[0].split("\n")
        require(name == origin, "a note about a key is of another log")
        if kind == "ledgerq.witness/v1":
            require(parse_key(key)[1][0] == COSIGNS and not before, "expected a witness")
            witnesses[note] = parse_key(key)
            continue
        require(kind == "ledgerq.key/v1" and len(before) == 1, "expected a note about a key")
        both = [parse_key(before[0]), parse_key(key)]
        require(all((k[0], k[1][0]) == (origin, SIGNS) for k in both), "keys of another log")
        require(signers_of(note, both) == both, "a key is not introduced by the one before it")
        require(not led_to or led_to[-1] == both[0], "the keys do not follow upon one another")
        led_to += both[1:] if led_to else both
    for note in witnesses:
        require(len(signers_of(note, [*trusted, *led_to])) == 1, "a witness is not introduced")
    return [led_to, [*witnesses.values()]]


def check_signed(proof: Mapping[str, Any], origin: str, keys: Sequence[Key]) -> str:
    """That a trusted key signed the checkpoint, or led to the key that did; the ids of those that
    did. A key is good for all logs of its ledger, under the log's name."""
    ledger = origin.rpartition("/")[0]
    good = [raw for name, raw in keys if name.rpartition("/")[0] == ledger and raw[0] == SIGNS]
    trusted = [(origin, raw) for raw in good]
    led_to, witnesses = keys_led_to(proof, origin, trusted)
    given = [key for key in keys if key[1][0] == COSIGNS]
    signed = signers_of(proof["checkpoint"], [*trusted, *led_to, *witnesses, *given])
    require(not led_to or led_to[-1] in signed, "the keys lead to one that did not sign")
    believed = {*trusted, *led_to} if {*trusted} & {*led_to} else {*trusted}
    found = [key_id(key).hex() for key in signed if key in believed]
    require(found, f"the checkpoint of {origin} is signed by none of the keys")
    return ", ".join(found)


# -- the events -----------------------------------------------------------------------------------


def read_leaves(proof: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The leaves, if they follow upon one another and have the data that they say."""
    events = proof["events"]
    leaves = [json.loads(event["leaf"]) for event in events]
    require(leaves, "it has no events")
    first = leaves[0]
    no_beginning = f"the events before version {first['version']} are missing"
    require(not first["prev"] and (first["version"] > 1 or not first["prev_entry"]), no_beginning)
    for leaf in leaves:
        require(leaf["task"] == proof["task"], f"an event is of another task, {leaf['task']}")
        require(leaf["v"] == 1, "expected leaves of version 1")
        require(0 <= leaf["at"] <= LAST_MS, "an event is of a time that none can be of")
    for (event, before), (_, leaf) in pairwise(zip(events, leaves, strict=True)):
        where = f"event {leaf['version']} ({leaf['type']})"
        require(leaf["version"] == before["version"] + 1, f"{where} is not the next one")
        require(leaf["prev"] == leaf_hash(event["leaf"].encode()).hex(), f"{where}: altered chain")
        require(leaf["prev_entry"] == before["entry"], f"{where} follows another entry")
        require(entry_order(before) < entry_order(leaf), f"{where} stands before the one before")
    redacted: dict[str, str] = {}
    for event, leaf in zip(events, leaves, strict=True):
        if leaf["type"] == "TaskErased" and "erased" not in event:
            redacted |= json.loads(event["data"])["redacted"]
    for event, leaf in zip(events, leaves, strict=True):
        where = f"event {leaf['version']} ({leaf['type']})"
        data = content_of(event)
        salted = decoded(event.get("salt", "")) + data
        if "erased" in event:
            left = redacted.get(str(leaf["version"]))
            require(sha256(data).hex() == left, f"{where}: nothing says that this was left of it")
        else:
            require(sha256(salted).hex() == leaf["data"], f"{where}: its data was altered")
    return leaves


def content_of(event: Mapping[str, Any]) -> bytes:
    """An event's data: text, or bytes in base64 where it is none."""
    if "data_base64" not in event:
        return event.get("data", "").encode()
    raw = decoded(event["data_base64"])
    try:
        raw.decode()
    except UnicodeDecodeError:
        return raw
    raise Wrong("data that is text is not written as text")


def entry_order(leaf: Mapping[str, Any]) -> tuple[int, int]:
    ms, _, number = leaf["entry"].partition("-")
    return int(ms), int(number)


# -- the index: which leaves the task has in each range of the log --------------------------------


def segment_ranges(size: int) -> Iterator[tuple[int, int]]:
    """Of powers of two from 2**22 down to 2**8, and what is left."""
    start = 0
    while start < size:
        length = min(1 << 22, 1 << ((size - start).bit_length() - 1))
        end = start + length if length >= 256 else size
        yield start, end
        start = end


def numbers_in(packed: bytes) -> Iterator[int]:
    """LEB128."""
    number = shift = 0
    for byte in packed:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield number
            number = shift = 0
    require(shift == 0, "a record of the index is cut off")


def leaves_within(start: int, end: int, segment: Mapping[str, Any], key: bytes) -> list[int]:
    """Which leaves the task has there: those of its record, or none where two neighbours, or the
    first or last record, leave no room for one."""
    where = f"the index of the leaves {start} to {end}"
    numbers: list[int] = [place["number"] for place in segment["places"]]
    records = [decoded(place["record"]) for place in segment["places"]]
    keys, last = [record[:16] for record in records], segment["records"] - 1
    require(last < end - start, f"{where} has more records than leaves")
    if keys == [key]:
        count, *gaps = numbers_in(records[0][16:])
        leaves = [start + distance for distance in accumulate(gaps)]
        good = count == len(leaves) > 0 and all(gaps[1:]) and leaves[-1] < end
        require(good, f"{where}: the task's record cannot be")
        return leaves
    if len(keys) == 2:
        absent = numbers[1] == numbers[0] + 1 and keys[0] < key < keys[1]
    elif len(keys) == 1:
        absent = (numbers[0] == 0 and key < keys[0]) or (numbers[0] == last and keys[0] < key)
    else:
        absent = not keys and segment["records"] == 0
    require(absent, f"{where} does not tell whether the task has leaves there")
    return []


# -- the whole ------------------------------------------------------------------------------------


def require_fields(found: Any, kinds: Mapping[str, type], optional: Sequence[str] = ()) -> None:
    named = [name for name in kinds if name in found or name not in optional]
    require([*found] == named, f"expected the fields {named}, got {[*found]}")
    require(all(type(found[name]) is kinds[name] for name in found), "a field is of another kind")
    require(all(found[name] for name in optional if name in found), "a field is empty")


def require_shape(written: bytes, proof: Any) -> None:
    """That the file has these fields, in this order, and is written in the one way to write it."""
    again = json.dumps(proof, indent=1, ensure_ascii=False) + "\n"
    require(again.encode() == written, "the file is not written as it must be")
    require_fields(proof, PROOF)
    require(proof["format"] == "ledgerq.proof/v1", "it is of another format")
    for event in proof["events"]:
        require_fields(event, EVENT, optional=[*EVENT][2:])
        require({"data", "data_base64"} - {*event}, "an event has its data twice")
        require({"salt", "erased"} - {*event}, "what was erased has a salt")
    for segment in proof["segments"]:
        require_fields(segment, SEGMENT)
        for place in segment["places"]:
            require_fields(place, PLACE)


def check(written: bytes, keys: Sequence[Key]) -> tuple[list[dict[str, Any]], str]:
    """The leaves that a proof shows, and up to where they are all. Raises Wrong."""
    proof = json.loads(written)
    require_shape(written, proof)
    match = re.fullmatch(CHECKPOINT, proof["checkpoint"].rpartition("\n\n")[0], re.ASCII)
    if match is None:
        raise Wrong("expected a checkpoint: origin, size, root, index and last")
    origin, size, last = match[1], int(match[2]), match[5]
    signers = check_signed(proof, origin, keys)
    leaves = read_leaves(proof)
    key = bytes(16) if proof["task"] == "system" else bytes.fromhex(proof["task"].replace("-", ""))
    own: list[int] = []
    summaries: dict[int, bytes] = {}
    for (start, end), segment in zip(segment_ranges(size), proof["segments"], strict=True):
        own += leaves_within(start, end, segment, key)
        places = {p["number"]: leaf_hash(decoded(p["record"])) for p in segment["places"]}
        root = root_of(segment["records"], places, segment["hashes"])
        numbers = b"".join(n.to_bytes(8, "big") for n in (start, end, segment["records"]))
        summaries[len(summaries)] = leaf_hash(numbers + root)
    index_root = root_of(len(summaries), summaries, [])
    require(index_root == decoded(match[4], 32), "the index's records lead to another root")
    shown = [event["index"] for event in proof["events"]]
    require(shown == own, f"the task has the leaves {own}, and the file {shown}")
    entries = {event["index"]: leaf_hash(event["leaf"].encode()) for event in proof["events"]}
    root = root_of(size, entries, proof["hashes"])
    require(root == decoded(match[3], 32), "the events lead to another root")
    until = f" up to its entry {last}" if last else ""
    return leaves, f"{origin}, of {size} events{until}, signed by {signers}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("file")
    key_help = "a public key of the ledger, or @FILE with one a line"
    parser.add_argument("--key", action="append", required=True, help=key_help)
    given = parser.parse_args()
    try:
        keys = [parse_key(key) for each in given.key for key in keys_of(each)]
        written = Path(given.file).read_bytes()
    except (OSError, ValueError) as error:
        sys.exit(print(f"check_proof: cannot check: {error}", file=sys.stderr) or 4)
    try:
        leaves, log = check(written, keys)
    except (Wrong, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        sys.exit(print(f"check_proof: the proof does not hold: {error}", file=sys.stderr) or 1)
    for leaf in leaves:
        at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=leaf["at"])
        print(f"{leaf['version']:4}  {at.isoformat(timespec='milliseconds')}  {leaf['type']}")
    print(f"These are all events of {leaves[0]['task']} in {log}.")
    if leaves[0]["version"] > 1:
        print("But the log never had the first ones of them.")
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
