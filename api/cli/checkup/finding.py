"""What one check found."""

from enum import StrEnum

import msgspec


class Level(StrEnum):
    """How bad it is. Only `fail` keeps the service from working, or breaks a promise of it."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Finding(msgspec.Struct, frozen=True):
    """`advice` says what to do; empty where nothing is wrong."""

    check: str
    level: Level
    message: str
    advice: str = ""


def ok(check: str, message: str) -> Finding:
    """Nothing to do."""
    return Finding(check, Level.OK, message)


def warn(check: str, message: str, advice: str) -> Finding:
    """It works, but somebody should look."""
    return Finding(check, Level.WARN, message, advice)


def fail(check: str, message: str, advice: str) -> Finding:
    """It does not work, or not as promised."""
    return Finding(check, Level.FAIL, message, advice)
