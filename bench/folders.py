"""Folders for many files, on the disk that a user's data would be on."""

import functools
import tempfile
from pathlib import Path


def new_folder() -> Path:
    """An empty folder below the working directory. It stays until this process ends: for some
    minutes, ext4 looks through all inodes whose files were deleted lately each time that it makes
    one, so that what is deleted after one round makes the next ones slower, by a half and more."""
    return Path(tempfile.mkdtemp(dir=_all_folders().name))


@functools.cache
def _all_folders() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix=".bench-", dir=Path.cwd())
