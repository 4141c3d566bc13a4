"""What a module of handlers registers; `python -m consumers.registered MODULE` prints its types.

`ledgerq up` asks in this way, since a user's module is never imported into its own process.
"""

import os
import sys
import traceback
from collections.abc import Mapping

import msgspec

from consumers.handlers import Handler, HandlersError, load_handlers
from consumers.pool import UNUSABLE


def import_handlers(module: str | None) -> Mapping[str, Handler]:
    """As `load_handlers`; a fault in the module's own code is shown on standard error, where its
    author looks for it, and is a HandlersError too."""
    try:
        return load_handlers(module)
    except HandlersError:
        raise
    except Exception as error:
        traceback.print_exc()
        raise HandlersError(f"--handlers {module}: importing it failed") from error


def main() -> int:
    """The exit code; the types are a JSON array on standard output."""
    # What the module prints must not get between.
    output = os.dup(1)
    os.dup2(2, 1)
    try:
        handlers = import_handlers(sys.argv[1])
    except HandlersError as error:
        sys.stderr.write(f"ledgerq: {error}\n")
        return UNUSABLE
    os.write(output, msgspec.json.encode(list(handlers)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
