"""`ledgerq scheduler`"""

import uvloop

from api.cli.flags import DataDir, Format, Level, RedisUrl, load_settings
from consumers import logs
from consumers.meters import Meter
from consumers.roles import make_scheduler, run_role


def scheduler(
    *,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
    log_level: Level = None,
    log_format: Format = None,
) -> None:
    """Waits for its server when that is not there yet. Any number of schedulers may run."""
    settings = load_settings(**locals()).settings
    logs.configure(settings, "scheduler")
    meter = Meter()
    uvloop.run(run_role(settings, make_scheduler(settings, meter), meter=meter))
