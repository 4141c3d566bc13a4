"""The command line, `ledgerq`. Each command lies in a file of its own, loaded when it is called."""

import os
import sys
from typing import Final

INTERRUPTED: Final = 130
"""The exit code of what ctrl-C ended, as shells have it."""


def main() -> int:
    """Run the command of `sys.argv`; its exit code: 0 it worked, 1 it did not, 2 it was misspelt,
    130 it was interrupted; commands that check an archive have further ones.

    What went wrong is one line on standard error; a traceback there is a fault of ours.
    """
    try:
        # Here, since it takes long enough to be interrupted.
        from api.cli.app import app

        result = app(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough (`ledgerq history … | head`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except Exception as error:
        from api.cli.failures import exit_code_of, is_clear

        if not is_clear(error):
            raise
        print(f"ledgerq: {error}", file=sys.stderr)
        return exit_code_of(error)
    return result if isinstance(result, int) else 0
