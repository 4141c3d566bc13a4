"""What uploaded files are called in the object store: every key is built and read here.

    uploads/<ledger>/<day>/<task id>-<upload>-<name>

<ledger>  the first 8 digits of the epoch of the ledger that has the task: another ledger that is
          given the same store, or one that begins anew, must not take its files for its own
<day>     when the file was uploaded, in UTC: who looks for what a crash left behind looks through
          some days, not through all that was ever uploaded
<task id> whose file it is, chosen before it is stored
<upload>  8 hexadecimal digits by chance: an upload that is sent again (Idempotency-Key) never
          writes to an object that a task may have already
<name>    what is left of the file's own name (`safe_name`)
"""

import re
from datetime import date
from typing import Final

UPLOADS: Final = "uploads"
EPOCH_CHARACTERS: Final = 8
NAME_CHARACTERS_MAX: Final = 100
SUFFIX_CHARACTERS_MAX: Final = 20
"""Of a long name, so much of its end is kept: programs go by it."""

NO_NAME: Final = "file"

_ID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_KEY = re.compile(
    rf"{UPLOADS}/[0-9a-z]{{1,8}}/[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}/(?P<task>{_ID})-[0-9a-f]{{8}}-[A-Za-z0-9._-]+"
)
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_LAST_PART = re.compile(r"[^/\\]*$")


def upload_key(epoch: str, day: date, task_id: str, upload: str, filename: str) -> str:
    """The key of a file; `upload` are the 8 digits."""
    return f"{day_prefix(epoch, day)}/{task_id}-{upload}-{safe_name(filename)}"


def day_prefix(epoch: str, day: date) -> str:
    """What the keys of a day's uploads begin with, of the ledger of that epoch."""
    return f"{UPLOADS}/{epoch[:EPOCH_CHARACTERS]}/{day.isoformat()}"


def is_upload_key(key: str) -> bool:
    """Whether it is a key as they are built here: it leads nowhere else, whoever made it up."""
    return _KEY.fullmatch(key) is not None


def task_of(key: str) -> str | None:
    """The id of the task that an object belongs to; None for an object that is no upload."""
    found = _KEY.fullmatch(key)
    return None if found is None else found["task"]


def safe_name(filename: str) -> str:
    """A name that means the same to every file system and URL: the last part of a path, in plain
    letters, digits, `.`, `_` and `-`, none of the dots in front."""
    last = _LAST_PART.search(filename)
    name = _UNSAFE.sub("_", last[0] if last else "").lstrip(".")
    if len(name) > NAME_CHARACTERS_MAX:
        stem, dot, suffix = name.rpartition(".")
        end = f"{dot}{suffix}" if stem and len(suffix) < SUFFIX_CHARACTERS_MAX else ""
        name = name[: NAME_CHARACTERS_MAX - len(end)] + end
    return name or NO_NAME
