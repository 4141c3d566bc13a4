"""If-Match: a change that is wanted only while what it changes is as its caller saw it; and
If-None-Match: an answer that is wanted only if it is not the one that the caller has."""

import re
from typing import Final

from api.errors import invalid

_TAG: Final = rb'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
_OPAQUE = re.compile(rb'"[^"]*"')
_TAGS = re.compile(rb"%b(?:[ \t]*,[ \t]*%b)*" % (_TAG, _TAG))
_VERSION_TAG = re.compile(rb'(W/)?"(?:(0|[1-9][0-9]{0,17})|[^"]*)"')


def expected_versions(if_match: bytes | None) -> frozenset[int] | None:
    """The versions that the header names; None when any will do (`*`, or no header).

    RFC 9110, section 13.1.1: `*` or a list of entity tags, compared strongly. A tag that nothing
    ever has (a weak one, or no version) is well-formed and matches nothing. Raises ApiError (400)
    for what is no such list.
    """
    if if_match is None or if_match == b"*":
        return None
    if not _TAGS.fullmatch(if_match):
        raise invalid("If-Match", '* or entity tags as the ETag header gives them, such as "3"')
    found = _VERSION_TAG.findall(if_match)
    return frozenset(int(version) for weak, version in found if version and not weak)


def is_known(if_none_match: bytes | None, etag: bytes) -> bool:
    """Whether the header names `etag`, or any (`*`).

    RFC 9110, section 13.1.2: compared weakly. A malformed header names nothing: the worst that
    comes of it is a whole answer.
    """
    if if_none_match is None:
        return False
    return if_none_match == b"*" or etag in re.findall(_OPAQUE, if_none_match)
