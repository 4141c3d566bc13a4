"""What a command reports in one line, and ends with exit code 1."""


class CliError(Exception):
    """Something that the person at the terminal can mend; says what, where and how."""

    exit_code = 1


class NotWhole(CliError):
    """What there is may be as it should be, but something is missing, or is not there yet."""

    exit_code = 3


class CouldNotCheck(CliError):
    """A check that came to no end, so that it says nothing of what was to be checked."""

    exit_code = 4


def is_clear(error: Exception) -> bool:
    """Whether the exception's text is all that a person needs."""
    # Imported here: most commands end well, and need none of it.
    from consumers.handlers import HandlersError
    from consumers.pool import CannotRun
    from consumers.programs import NoServer
    from ledger.archive.reader import Damaged, Incomplete
    from ledger.embedded import EmbeddedServerError
    from ledger.objects import ObjectStoreError
    from ledger.redis_connection import ServerRefused
    from ledger.redis_store import LedgerMismatch
    from ledger.rejections import Rejection
    from ledger.settings_sources import SettingsError
    from projections.check import CannotCheck
    from projections.lives import Unfoldable

    ours = (
        CliError,
        CannotCheck,
        Damaged,
        Incomplete,
        SettingsError,
        EmbeddedServerError,
        LedgerMismatch,
        ObjectStoreError,
        ServerRefused,
        Rejection,
        Unfoldable,
    )
    return isinstance(error, (*ours, CannotRun, HandlersError, NoServer))


def exit_code_of(error: Exception) -> int:
    """What a command ends with over an error that is clear."""
    from ledger.archive.reader import Incomplete

    if isinstance(error, CliError):
        return error.exit_code
    return NotWhole.exit_code if isinstance(error, Incomplete) else 1
