"""Every field of a submission, wrong in every way: a clear error, and an unchanged ledger."""

import json

import httpx2
import pytest

from ledger.redis_store import RedisStore
from tests.api.requests import BATCH, TASKS, post_raw, raw_body, state_of

DEEP = b"[" * 10_000 + b"]" * 10_000
DEEP_OBJECT = b'{"a":' * 10_000 + b"1" + b"}" * 10_000
LONG_TEXT = b'"' + b"x" * (2 << 20) + b'"'
TWO = raw_body("", None) + b"{}"
LARGE_OBJECT = b'{"a":' + LONG_TEXT + b"}"

FIELDS = (
    "task_type",
    "kb_id",
    "payload",
    "priority",
    "max_retries",
    "timeout",
    "schedule_for",
    "callback_url",
    "metadata",
)

# Wrong for every field, whatever it holds.
EVERYWHERE = {
    "true": b"true",
    "list": b"[]",
    "list_of_objects": b"[{}]",
    "not_json": b"nope",
    "bare_word": b"NaN",
    "cut_short": b'"abc',
    "single_quotes": b"'a'",
    "trailing_comma": b'{"a":1,}',
    "not_utf8": b'"\xff"',
    "not_utf8_inside": b'{"a":"\xc3"}',
    "lone_surrogate": b'"\\ud800 "',
    "control_character": b'"a\x01b"',
    "deep": DEEP,
    "deep_object": DEEP_OBJECT,
    "long_text": LONG_TEXT,
}
NUMBERS = {"number": b"3.5", "huge": b"1" * 5_000, "negative": b"-1", "exponent": b"1e-2"}
TEXTS = {"text": b'"a"', "empty": b'""', "digits": b'"3"'}
NULL = {"null": b"null"}
OBJECT = {"object": b'{"a":1}', "empty_object": b"{}"}

WRONG: dict[str, dict[str, bytes | None]] = {
    "task_type": {
        "missing": None,
        **(NULL | NUMBERS | OBJECT | TEXTS),
        "unknown": b'"video"',
        "case": b'"Health_Check"',
        "colon": b'"health_check:high"',
    },
    "kb_id": {
        "missing": None,
        **(NULL | NUMBERS | OBJECT),
        "empty": b'""',
        "too_long": b'"' + b"k" * 256 + b'"',
        "escaped_nul": b'"a\\u0000b"',
        "escaped_newline": b'"a\\nb"',
        "delete": b'"a\\u007fb"',
        "c1_control": b'"a\\u0085b"',
    },
    "payload": {"missing": None, **(NULL | NUMBERS | TEXTS)},
    "priority": {**(NULL | NUMBERS | OBJECT | TEXTS), "case": b'"HIGH"'},
    "max_retries": {**(NULL | NUMBERS | OBJECT | TEXTS), "above": b"101", "float": b"101.0"},
    "timeout": {**(NULL | NUMBERS | OBJECT | TEXTS), "zero": b"0", "above": b"86401"},
    "schedule_for": {
        **(NUMBERS | OBJECT | TEXTS),
        "naive": b'"2030-01-31T09:30:00"',
        "date": b'"2030-01-31"',
        "no_such_day": b'"2030-02-30T00:00:00Z"',
        "year_10000": b'"10000-01-01T00:00:00Z"',
        "year_10000_in_utc": b'"9999-12-31T23:59:59-01:00"',
        "year_0_in_utc": b'"0001-01-01T00:00:00+01:00"',
        "epoch": b"1900000000",
        "age": b'"15m"',
    },
    "callback_url": {
        **(NUMBERS | OBJECT | TEXTS),
        "other_scheme": b'"ftp://localhost/"',
        "script": b'"javascript:alert(1)"',
        "file": b'"file:///etc/passwd"',
        "no_host": b'"http:///a"',
        "foreign_host": b'"http://example.org/"',
        "private_host": b'"http://10.0.0.1/"',
        "metadata_host": b'"http://169.254.169.254/latest"',
        "host_as_suffix": b'"http://localhost.example.org/"',
        "credentials": b'"http://user:word@localhost/"',
        "host_as_user": b'"http://localhost@example.org/"',
        "backslash": b'"http://localhost\\\\@example.org/"',
        "space": b'"http://localhost/a b"',
        "newline": b'"http://localhost/\\nx"',
        "port_zero": b'"http://localhost:0/"',
        "port_above": b'"http://localhost:65536/"',
        "no_address": b'"http://[::1/"',
        "bad_address": b'"http://[:::]/"',
        "too_long": b'"http://localhost/' + b"a" * 2_048 + b'"',
        "no_ascii": '"http://localhost/é"'.encode(),
    },
    "metadata": {**NUMBERS, **TEXTS},
}

CASES = [
    pytest.param(field, value, id=f"{field}-{name}")
    for field in FIELDS
    for name, value in (WRONG[field] | EVERYWHERE).items()
]


@pytest.mark.parametrize(("field", "value"), CASES)
async def test_a_wrong_field_is_named_and_nothing_is_written(
    api: httpx2.AsyncClient, store: RedisStore, field: str, value: bytes | None
):
    before = await state_of(store)

    answer = await post_raw(api, TASKS, raw_body(field, value))

    error = answer.json()
    assert answer.status_code == 400, error
    assert error["code"] == "INVALID_REQUEST"
    assert error["details"]["field"] == field
    assert error["details"]["expected"]
    assert field in error["message"]
    assert len(answer.content) < 2_000
    assert await state_of(store) == before


@pytest.mark.parametrize(("field", "value"), CASES)
async def test_a_wrong_item_is_named_and_its_whole_batch_refused(
    api: httpx2.AsyncClient, store: RedisStore, field: str, value: bytes | None
):
    before = await state_of(store)
    batch = [raw_body("", None), raw_body("", None), raw_body(field, value), raw_body("", None)]

    answer = await post_raw(api, BATCH, b" [ " + b" , ".join(batch) + b"]")

    error = answer.json()
    assert answer.status_code == 400, error
    assert (error["details"]["index"], error["details"]["field"]) == (2, field)
    assert await state_of(store) == before


@pytest.mark.parametrize("field", ["payload", "metadata"])
@pytest.mark.parametrize("path", [TASKS, BATCH])
async def test_a_large_object_is_too_large(
    api: httpx2.AsyncClient, store: RedisStore, path: str, field: str
):
    before = await state_of(store)
    sent = raw_body(field, LARGE_OBJECT)

    answer = await post_raw(api, path, sent if path == TASKS else b"[" + sent + b"]")

    assert answer.status_code == 413
    assert answer.json()["code"] == "PAYLOAD_TOO_LARGE"
    assert answer.json()["details"]["field"] == field
    assert await state_of(store) == before


HUGE_NUMBERS = {
    "exponent": b'{"a":1e400}',
    "capital": b'{"a":-1E+400}',
    "long_exponent": b'{"a":[1.5e00000000400]}',
    "many_digits_and_exponent": b'{"a":' + b"9" * 299 + b"e99}",
    "many_digits_and_fraction": b'{"a":' + b"9" * 400 + b".5}",
    "many_digits": b'{"a":' + b"9" * 5_000 + b"}",
}


@pytest.mark.parametrize("field", ["payload", "metadata"])
@pytest.mark.parametrize("sent", HUGE_NUMBERS.values(), ids=HUGE_NUMBERS)
async def test_a_number_that_no_worker_could_read_is_refused(
    api: httpx2.AsyncClient, store: RedisStore, field: str, sent: bytes
):
    before = await state_of(store)

    answer = await post_raw(api, TASKS, raw_body(field, sent))

    assert answer.status_code == 400
    assert answer.json()["details"]["field"] == field
    assert "out of range" in answer.json()["message"]
    assert await state_of(store) == before


async def test_an_object_of_just_the_allowed_size_is_taken(api: httpx2.AsyncClient):
    payload = b'{"a":"' + b"x" * ((1 << 20) - 8) + b'"}'

    answer = await post_raw(api, TASKS, raw_body("payload", payload))

    assert len(payload) == 1 << 20
    assert answer.status_code == 201


@pytest.mark.parametrize(
    "name", ["id", "Payload", "timeout_s", "x" * 3_000, "a` - at `$.kb_id", ""]
)
async def test_an_unknown_field_is_named(api: httpx2.AsyncClient, store: RedisStore, name: str):
    before = await state_of(store)
    sent = raw_body(name, b"1") if name else raw_body("", None).replace(b"{", b'{"":1,', 1)

    answer = await post_raw(api, TASKS, sent)

    details = answer.json()["details"]
    assert answer.status_code == 400
    assert details["field"] == name[:100]
    assert "task_type" in details["expected"]
    assert await state_of(store) == before


async def test_an_unknown_type_is_told_the_known_ones(api: httpx2.AsyncClient):
    answer = await post_raw(api, TASKS, raw_body("task_type", b'"video"'))

    assert "document_processing, batch_processing" in answer.json()["details"]["expected"]


NO_SUBMISSION = {
    "empty": b"",
    "blank": b" ",
    "null": b"null",
    "list": b"[]",
    "number": b"1",
    "text": b'"x"',
    "cut": b"{",
    "two": TWO,
    "not_utf8": b"\xff",
    "nul": b"\x00",
    "byte_order_mark": b"\xef\xbb\xbf{}",
    "deep": DEEP,
}


@pytest.mark.parametrize("sent", NO_SUBMISSION.values(), ids=NO_SUBMISSION)
async def test_a_body_that_is_no_submission_is_refused(
    api: httpx2.AsyncClient, store: RedisStore, sent: bytes
):
    before = await state_of(store)

    answer = await post_raw(api, TASKS, sent)

    assert answer.status_code == 400
    assert answer.json()["code"] == "INVALID_REQUEST"
    assert answer.json()["details"]["field"] == "body"
    assert await state_of(store) == before


NO_BATCH = {
    "empty": b"",
    "null": b"null",
    "object": b"{}",
    "none": b"[]",
    "number": b"1",
    "numbers": b"[1]",
    "nulls": b"[null]",
    "lists": b"[[]]",
    "cut": b"[",
    "cut_item": b"[{}",
    "not_utf8": b"\xff",
    "deep": DEEP,
}


@pytest.mark.parametrize("sent", NO_BATCH.values(), ids=NO_BATCH)
async def test_a_body_that_is_no_batch_is_refused(
    api: httpx2.AsyncClient, store: RedisStore, sent: bytes
):
    before = await state_of(store)

    answer = await post_raw(api, BATCH, sent)

    assert answer.status_code == 400
    assert answer.json()["details"]["field"] in ("body", "task_type")
    assert await state_of(store) == before


async def test_a_batch_of_too_many_is_refused_whole(api: httpx2.AsyncClient, store: RedisStore):
    before = await state_of(store)
    item = raw_body("", None)

    answer = await post_raw(api, BATCH, b"[" + b",".join([item] * 1_001) + b"]")

    assert answer.status_code == 400
    assert "1 to 1000" in answer.json()["details"]["expected"]
    assert await state_of(store) == before


@pytest.mark.parametrize("levels", [257, 900])
async def test_deep_payloads_are_refused_below_the_parsers_own_bound(
    api: httpx2.AsyncClient, levels: int
):
    payload = b'{"a":' * levels + b"1" + b"}" * levels

    answer = await post_raw(api, TASKS, raw_body("payload", payload))

    assert answer.status_code == 400
    assert answer.json()["details"] == {
        "field": "payload",
        "expected": "at most 256 levels of nesting",
    }


async def test_a_payload_of_256_levels_comes_back(api: httpx2.AsyncClient):
    payload = b'{"a":' * 256 + b"1" + b"}" * 256

    answer = await post_raw(api, TASKS, raw_body("payload", payload))

    assert answer.status_code == 201
    assert payload in (await api.get(answer.headers["location"])).content


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=latin-1",
        "application/jsonp",
        "",
    ],
)
@pytest.mark.parametrize("path", [TASKS, BATCH])
async def test_another_kind_of_body_is_refused(
    api: httpx2.AsyncClient, store: RedisStore, path: str, kind: str
):
    before = await state_of(store)

    answer = await api.post(path, content=raw_body("", None), headers={"content-type": kind})

    assert answer.status_code == 415
    assert answer.json()["code"] == "UNSUPPORTED_MEDIA_TYPE"
    assert await state_of(store) == before


async def test_a_compressed_body_is_refused(api: httpx2.AsyncClient):
    answer = await post_raw(api, TASKS, b"\x1f\x8b", **{"content-encoding": "gzip"})

    assert answer.status_code == 415
    assert answer.json()["details"]["field"] == "Content-Encoding"


async def test_a_body_that_declares_too_much_is_refused_unread(api: httpx2.AsyncClient):
    async def never_read():
        raise AssertionError("the body was read")
        yield b""

    declared = {"content-type": "application/json", "content-length": str(3 << 20)}
    answer = await api.post(TASKS, content=never_read(), headers=declared)

    assert answer.status_code == 413


async def test_a_body_without_a_length_is_cut_off_at_the_bound(api: httpx2.AsyncClient):
    chunk, sent = b" " * 65_536, 0

    async def endless():
        nonlocal sent
        while True:
            sent += len(chunk)
            yield chunk

    answer = await api.post(TASKS, content=endless(), headers={"content-type": "application/json"})

    assert answer.status_code == 413
    assert sent <= (2 << 20) + 3 * 65_536


@pytest.mark.parametrize("header", ["X-Actor", "Idempotency-Key"])
async def test_a_bad_header_is_named(api: httpx2.AsyncClient, store: RedisStore, header: str):
    before = await state_of(store)
    sent = json.dumps({"task_type": "health_check", "kb_id": "k", "payload": {}}).encode()

    answer = await post_raw(api, TASKS, sent, **{header: "x" * 256})

    assert answer.status_code == 400
    assert answer.json()["details"]["field"] == header
    assert await state_of(store) == before
