"""`ledgerq notifier`"""

import uvloop

from api.cli.flags import CallbackHosts, DataDir, Format, Level, RedisUrl, load_settings
from consumers import logs
from consumers.meters import Meter
from consumers.roles import make_notifier, run_role


def notifier(
    *,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
    callback_hosts: CallbackHosts = None,
    log_level: Level = None,
    log_format: Format = None,
) -> None:
    """Signs with the keys in LEDGERQ_CALLBACK_SECRETS, else with the one in the data directory,
    where it makes one if need be. Any number of notifiers may run; they need the same keys."""
    settings = load_settings(**locals()).settings
    logs.configure(settings, "notifier")
    meter = Meter()
    uvloop.run(run_role(settings, make_notifier(settings, meter), meter=meter))
