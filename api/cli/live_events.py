"""The live feed as a command follows it: Server-Sent Events, resumed whenever they break off."""

import random
import sys
import time
from collections.abc import Generator, Iterator, Mapping
from typing import Final

from api.cli.client import Lost, Service

EVENTS: Final = "/api/v1/events"

RETRY_FIRST_S: Final = 0.2
RETRY_CAP_S: Final = 5.0


def follow(service: Service, query: Mapping[str, str]) -> Generator[bytes]:
    """The JSON of each event, for ever. What happens while the service is away comes afterwards.

    Raises CliError when the service cannot be reached at the beginning, or refuses.
    """
    feed, failures = _Feed(), 0
    while True:
        headers = {"Last-Event-ID": feed.last_id} if feed.last_id else {}
        reason = "the service ended it"
        try:
            for part in service.stream(EVENTS, query, headers):
                if failures:
                    print("ledgerq: connected again", file=sys.stderr)
                    failures = 0
                yield from feed.read(part)
        except Lost as error:
            if not feed.last_id:
                raise
            reason = str(error)
        feed.broke_off()
        failures += 1
        if failures == 1:
            print(f"ledgerq: the feed broke off: {reason}; trying again", file=sys.stderr)
        time.sleep(_pause_s(failures))


class _Feed:
    """Reads the stream, and remembers where it was."""

    def __init__(self) -> None:
        self.last_id = ""
        """Of the last block that came whole."""
        self.broke_off()

    def broke_off(self) -> None:
        """What came half has to come again."""
        self._rest = b""
        self._id = self.last_id
        self._data: list[bytes] = []

    def read(self, part: bytes) -> Iterator[bytes]:
        """The data of each event that is whole with the next part of the stream."""
        # Not the client's own lines: those end at what JSON text may hold, such as U+2028.
        *lines, self._rest = (self._rest + part).split(b"\n")
        for line in lines:
            name, _, value = line.partition(b": ")
            if name == b"id":
                self._id = value.decode("latin-1")
            elif name == b"data":
                self._data.append(value)
            elif not line:
                data, self._data = self._data, []
                self.last_id = self._id
                if data:
                    yield b"\n".join(data)


def _pause_s(failures: int) -> float:
    full = min(RETRY_FIRST_S * 2.0 ** min(failures - 1, 16), RETRY_CAP_S)
    return full * (0.5 + random.random() / 2)  # noqa: S311 - spreads the callers
