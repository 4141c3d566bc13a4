"""`ledgerq api`"""

from api.cli.api_process import run_api
from api.cli.flags import (
    DataDir,
    Format,
    Host,
    Level,
    Port,
    RedisUrl,
    TaskTypes,
    load_settings,
)
from api.cli.listener import listen
from consumers import logs


def api(
    *,
    host: Host = None,
    port: Port = None,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
    task_types: TaskTypes = None,
    log_level: Level = None,
    log_format: Format = None,
) -> None:
    """Waits for its server when that is not there yet. SIGTERM: answers what is in work, ends."""
    settings = load_settings(**locals()).settings
    logs.configure(settings, "api")
    with listen(settings) as listener:
        run_api(settings, listener)
