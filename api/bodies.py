"""Reads small bodies through the struct that describes them: an error names the field."""

from collections.abc import Mapping
from typing import Generic, TypeVar

import msgspec

from api.errors import ApiError
from api.refusals import UNREADABLE, Refusals
from api.whole_numbers import decoded

Body = TypeVar("Body", bound=msgspec.Struct)


class BodyReader(Generic[Body]):
    """Reads bodies of one kind. `expected` says for each field what it must be."""

    def __init__(self, kind: type[Body], expected: Mapping[str, str]) -> None:
        self._decode = msgspec.json.Decoder(kind).decode
        self._refusals = Refusals(expected)

    def read(self, body: bytes) -> Body:
        """What the body says. Raises ApiError (400)."""
        try:
            body.decode()
            return decoded(self._decode, body)
        except UNREADABLE as error:
            raise self._refusals.unreadable(error, body) from None

    def wrong(self, name: str) -> ApiError:
        """400: the field, as far as its type goes, is not what it must be."""
        return self._refusals.wrong(name, None)
