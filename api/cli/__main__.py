"""`python -m api.cli`, for where the command `ledgerq` is not installed."""

import sys

from api.cli import main

sys.exit(main())
