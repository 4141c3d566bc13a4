"""A payload comes back byte for byte, wherever it is read."""

import json

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger.redis_store import RedisStore
from tests.api.requests import BATCH, TASKS, complete, post_raw, raw_body
from tests.strategies import json_values

ODD = {
    "spaces": b'{ "a" :\t1 ,\r\n "b":[ ] }',
    "empty": b"{}",
    "blank": b"{ \n }",
    "large_integer": b'{"a":123456789012345678901234567890123456789}',
    "long_fraction": b'{"a":0.1000000000000000055511151231257827021181583404541015625}',
    "exponents": b'{"a":1E300,"b":1e-400,"c":-0.0,"d":1.0e+05}',
    "like_a_large_number": b'{"a":"1e400","b":"' + b"9" * 5_000 + b'","c":"3e88e10f-1e999"}',
    "escapes": b'{"\\u0061":"\\u00e9\\ud83d\\ude00\\/\\b"}',
    "unicode": '{"é":"😀\u2028\u2029"}'.encode(),
    "same_key_twice": b'{"a":1,"a":2,"a":{"a":3}}',
    "escaped_nul": b'{"a":"\\u0000"}',
    "like_a_field": b'{"payload":{"kb_id":"x"},"metadata":null}',
    "brackets_in_text": b'{"a":"' + b"[{" * 400 + b'\\"]}"}',
    "many_siblings": b'{"a":[' + b"[]," * 5_000 + b"{}]}",
}


@pytest.mark.parametrize("payload", ODD.values(), ids=ODD)
async def test_odd_payloads_keep_their_bytes(
    api: httpx2.AsyncClient, store: RedisStore, payload: bytes
):
    sent = raw_body("payload", payload)

    created = await post_raw(api, TASKS, sent)
    location = created.headers["location"]
    await complete(store, location.rpartition("/")[2], payload)
    read = [
        await api.get(location),
        await api.get(location, params={"version": "1"}),
        await api.get(f"{location}/events"),
        await post_raw(api, BATCH, b"[" + sent + b"]"),
    ]

    assert created.status_code == 201
    assert b'"payload":' + payload + b"," in created.content
    assert all(b'"payload":' + payload in answer.content for answer in read)
    assert b'"result":' + payload in read[0].content


@pytest.mark.parametrize("payload", ODD.values(), ids=ODD)
async def test_metadata_keeps_its_bytes(api: httpx2.AsyncClient, payload: bytes):
    created = await post_raw(api, TASKS, raw_body("metadata", payload))

    read = await api.get(created.headers["location"])
    assert created.content.endswith(b'"metadata":' + payload + b"}")
    assert read.content == created.content


objects = st.dictionaries(st.text(), json_values, max_size=4).map(
    lambda fields: (
        b"{%s}" % b", ".join(json.dumps(k).encode() + b" :" + bytes(v) for k, v in fields.items())
    )
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(payload=objects, metadata=objects)
async def test_any_object_keeps_its_bytes(api: httpx2.AsyncClient, payload: bytes, metadata: bytes):
    sent = b'{"kb_id":"k","metadata":%b , "payload":  %b,"task_type":"health_check"}'

    created = await post_raw(api, TASKS, sent % (metadata, payload))
    read = await api.get(created.headers["location"])

    assert created.status_code == 201
    assert b'"payload":' + payload + b"," in read.content
    assert read.content.endswith(b'"metadata":' + metadata + b"}")
