"""The storage format of the service's own events and snapshot: as `test_golden`, never edited."""

from pathlib import Path
from typing import Any, Final, cast

import pytest

from ledger.codec import Meta, Undecodable, decode_system, decode_system_event, encode
from ledger.keys import PartitionKeys
from ledger.redis_store import RedisStore
from ledger.store import SystemAppend
from ledger.system.events import (
    SYSTEM_EVENT_TYPES,
    ArchiveHalted,
    LimitRemoved,
    LimitScope,
    LimitSet,
    QueuePaused,
    QueueResumed,
    SubscriptionHalted,
    SystemEvent,
    WorkerLost,
)
from ledger.system.evolve import evolve, fold
from ledger.system.state import INITIAL

GOLDEN: Final = Path(__file__).parents[1] / "golden" / "system" / "v1"
MS: Final = 1_763_811_000_000

EVENTS: Final[dict[str, SystemEvent]] = {
    type(event).__name__: event
    for event in (
        QueuePaused("document_processing", "the disk is full"),
        QueueResumed("document_processing"),
        LimitSet(LimitScope.KB, "handbook", 4),
        LimitRemoved(LimitScope.KB, "handbook"),
        SubscriptionHalted("billing", 1, "the ledger ends at 5-0, before 7-0"),
        ArchiveHalted(1, "the ledger ends at 1:5-0, before 1:7-0, which is in the archive"),
        WorkerLost("host-1-4711-a0b1", "host-1", 4_711, MS - 15_200, 3),
    )
}
LIFE: Final[list[tuple[SystemEvent, int, str]]] = [
    (EVENTS["QueuePaused"], MS, "ann"),
    (EVENTS["LimitSet"], MS + 1, "ann"),
    (LimitSet(LimitScope.TYPE, "health_check", 2), MS + 2, "api"),
    (EVENTS["WorkerLost"], MS + 3, "scheduler"),
]


def golden(name: str) -> bytes:
    return (GOLDEN / f"{name}.json").read_bytes().removesuffix(b"\n")


@pytest.mark.parametrize("name", SYSTEM_EVENT_TYPES)
def test_an_event_reads_and_writes_as_it_was_first_stored(name: str):
    assert decode_system_event(name, golden(name)) == EVENTS[name]
    assert encode(EVENTS[name]) == golden(name)


def test_a_snapshot_reads_and_writes_as_it_was_first_stored():
    system = fold(LIFE)

    assert decode_system(4, golden("snapshot")) == system
    assert encode(system.state) == golden("snapshot")


@pytest.mark.parametrize("data", [b"", b"[]", b'{"task_type":1,"paused":1}', b"\xff"])
def test_what_is_damaged_cannot_be_read(data: bytes):
    with pytest.raises(Undecodable):
        decode_system_event("QueuePaused", data)
    with pytest.raises(Undecodable):
        decode_system(1, data)


async def test_an_entry_has_the_fields_of_any_other(store: RedisStore):
    event = EVENTS["QueuePaused"]
    await store.append_system(
        SystemAppend(INITIAL, evolve(INITIAL, event, MS, "ann"), (event,), Meta("ann"))
    )

    [(_, fields)] = await cast("Any", store.client).xrange(PartitionKeys(0).events)

    assert {k.decode(): v.decode() for k, v in fields.items() if k != b"meta"} == {
        "type": "QueuePaused",
        "task": "system",
        "version": "1",
        "at": str(MS),
        "data": golden("QueuePaused").decode(),
        "prev": "",
    }
