"""Log records: one line each, JSON for machines, text for a person."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from consumers.logs import configure
from ledger.settings import LogFormat, LogLevel, Settings


@pytest.fixture(autouse=True)
def _logging_stays_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


class Terminal(io.BytesIO):
    def isatty(self) -> bool:
        return True


def records(stream: io.BytesIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_where_nobody_reads_it_live():
    configure(Settings(), "worker-2", stream := io.BytesIO())

    structlog.get_logger("claims").info("claimed", task_id="t", count=3)

    [record] = records(stream)
    assert record.pop("timestamp").endswith("Z")
    assert list(record.items()) == [
        ("level", "info"),
        ("role", "worker-2"),
        ("logger", "claims"),
        ("event", "claimed"),
        ("task_id", "t"),
        ("count", 3),
    ]


def test_text_on_a_terminal():
    configure(Settings(), "worker-2", stream := Terminal())

    structlog.get_logger("claims").info("claimed", count=3)

    text = stream.getvalue().decode()
    assert text.count("\n") == 1
    assert "claimed" in text
    assert "worker-2" in text


@pytest.mark.parametrize("wanted", [LogFormat.JSON, LogFormat.TEXT])
def test_the_settings_may_say_otherwise(wanted: LogFormat):
    stream = Terminal() if wanted is LogFormat.JSON else io.BytesIO()
    configure(Settings(log_format=wanted), "api", stream)

    structlog.get_logger("x").info("event")

    assert stream.getvalue().startswith(b"{") is (wanted is LogFormat.JSON)


def test_less_than_the_level_is_not_written():
    configure(Settings(log_level=LogLevel.WARNING), "api", stream := io.BytesIO())

    structlog.get_logger("x").info("quiet")
    structlog.get_logger("x").warning("loud")
    logging.getLogger("library").info("quiet")
    logging.getLogger("library").warning("loud")

    assert [record["event"] for record in records(stream)] == ["loud", "loud"]


def test_what_libraries_log_comes_out_the_same_way():
    configure(Settings(), "api", stream := io.BytesIO())

    logging.getLogger("library").warning("it is %d", 7)

    [record] = records(stream)
    assert (record["logger"], record["level"], record["event"]) == ("library", "warning", "it is 7")


@pytest.mark.parametrize("logger", [structlog.get_logger("x"), logging.getLogger("x")])
def test_an_exception_keeps_its_traceback_in_one_line(logger: Any):
    configure(Settings(), "api", stream := io.BytesIO())

    try:
        raise ValueError("wrong")
    except ValueError:
        logger.exception("failed")

    [record] = records(stream)
    assert record["exception"].endswith("ValueError: wrong")


def test_an_output_that_went_away_disturbs_nobody():
    class Gone(io.BytesIO):
        def write(self, *_: object) -> int:
            raise BrokenPipeError

    configure(Settings(), "api", Gone())

    structlog.get_logger("x").info("event")


@pytest.mark.parametrize("value", [object(), "\ud800", {1: 2}, {("a",): 1}, b"\xff"])
def test_no_record_is_lost_for_an_odd_value(value: object):
    configure(Settings(), "api", stream := io.BytesIO())

    structlog.get_logger("x").info("odd", value=value)

    assert records(stream)[0]["event"] == "odd"
