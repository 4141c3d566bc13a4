"""`ledgerq api`"""

from msgspec.structs import replace

from api.cli.api_process import run_api
from api.cli.flags import (
    CallbackHosts,
    DataDir,
    Format,
    GrpcPort,
    Host,
    Level,
    Port,
    RedisUrl,
    TaskTypes,
    load_settings,
)
from api.cli.listener import listen, reserve
from consumers import logs


def api(
    *,
    host: Host = None,
    port: Port = None,
    grpc_port: GrpcPort = None,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
    callback_hosts: CallbackHosts = None,
    task_types: TaskTypes = None,
    log_level: Level = None,
    log_format: Format = None,
) -> None:
    """Waits for its server when that is not there yet. SIGTERM: answers what is in work, ends."""
    settings = load_settings(**locals()).settings
    logs.configure(settings, "api")
    with listen(settings) as listener, reserve(settings) as grpc_port:
        run_api(replace(settings, grpc_port=grpc_port), listener)
