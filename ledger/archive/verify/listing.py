"""Which objects a log has, as far as what must be checked depends on it."""

import re
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from ledger.archive.tiles import path_number

if TYPE_CHECKING:
    from ledger.archive.merkle import Range

UNEXPECTED_NAMED: Final = 5

MISSING_NAMED: Final = 5
"""Of objects in a row."""

_NUMBER: Final = r"(?:x[0-9]{3}/){0,5}[0-9]{3}"
_TILE: Final = re.compile(
    rf"((?:tile/(?:entries|[0-9]|[1-5][0-9]|6[0-3])|data)/{_NUMBER})(?:\.p/([0-9]{{1,3}}))?"
)
_APART: Final = re.compile(rf"data/apart/({_NUMBER})")
_SEGMENT: Final = re.compile(r"index/([0-9]{1,16})-([0-9]{1,16})")
_LIST: Final = re.compile(rf"checkpoints/({_NUMBER})")
_SINGLE: Final = frozenset({"checkpoint", "keys"})


class Listing:
    """Made of the names that are there: 8 bytes for data that lies apart, nothing for whole tiles
    and bundles."""

    def __init__(self) -> None:
        self.partials: dict[str, list[int]] = {}
        """By the name of the whole tile or bundle, the widths of those that came before it."""
        self.segments: set[Range] = set()
        self._apart = array("Q")
        self._is_sorted = True
        self._lists: set[int] = set()
        """Numbers of the objects with checkpoints."""
        self.objects = 0
        self.unexpected: list[str] = []
        self.more_unexpected = 0

    def add(self, name: str) -> None:
        """An object is there."""
        self.objects += 1
        if found := _TILE.fullmatch(name):
            if found[2] is not None:
                self.partials.setdefault(found[1], []).append(int(found[2]))
        elif found := _APART.fullmatch(name):
            self._apart.append(_number(found[1]))
            self._is_sorted = False
        elif found := _SEGMENT.fullmatch(name):
            self.segments.add((int(found[1]), int(found[2])))
        elif (found := _LIST.fullmatch(name)) and (number := path_number(found[1])) is not None:
            self._lists.add(number)
        elif name not in _SINGLE:
            if len(self.unexpected) < UNEXPECTED_NAMED:
                self.unexpected.append(name)
            else:
                self.more_unexpected += 1

    def lists(self) -> tuple[list[int], list["Range"]]:
        """The numbers of the objects with checkpoints that there are, or should be; and of those
        that should be before the last one, the ranges that are left out, where too many in a row
        are missing. Where there is anything, there should be the first one."""
        numbers: list[int] = []
        holes: list[Range] = []
        following = 0
        for number in sorted(self._lists) or [0] * bool(self.objects):
            named = min(number, following + MISSING_NAMED)
            numbers += range(following, named)
            if named < number:
                holes.append((named, number))
            numbers.append(number)
            following = number + 1
        return numbers, holes

    def apart_in(self, start: int, end: int) -> Sequence[int]:
        """Of these leaves, those that have an object with data."""
        if not self._is_sorted:
            self._apart = array("Q", sorted(self._apart))
            self._is_sorted = True
        return self._apart[bisect_left(self._apart, start) : bisect_left(self._apart, end)]


def _number(path: str) -> int:
    return int(path.replace("x", "").replace("/", ""))
