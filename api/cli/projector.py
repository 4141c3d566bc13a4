"""`ledgerq projector`"""

import uvloop

from api.cli.flags import (
    DataDir,
    Format,
    Level,
    ReadModelDir,
    RedisUrl,
    SkipEvents,
    load_settings,
)
from consumers import logs
from consumers.collector import collect_rarely
from consumers.roles import make_projector, run_role


def projector(
    *,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
    read_model_dir: ReadModelDir = None,
    skip_events: SkipEvents = None,
    log_level: Level = None,
    log_format: Format = None,
) -> None:
    """One is enough for all API processes of a machine; a second one on the same folder stands by.
    Waits for its server when that is not there yet."""
    settings = load_settings(**locals()).settings
    logs.configure(settings, "projector")
    collect_rarely()
    uvloop.run(run_role(settings, make_projector(settings)))
