"""Every command: its name, its line of help and its example. None of their files is imported."""

from cyclopts import App, Group, Parameter

from ledger import __version__

app = App(
    name="ledgerq",
    version=__version__,
    help="A task manager on Redis Streams: hand work over in milliseconds, watch it live, prove its"
    " history. `ledgerq up` runs everything on this machine.",
    help_format="plaintext",
    help_epilogue="Settings come from flags, then LEDGERQ_* variables, then ledgerq.toml:"
    " `ledgerq settings` prints them.",
    default_parameter=Parameter(negative=(), show_default=False),
    result_action="return_value",
)


RUN = Group("Run", sort_key=1)
TASKS = Group("Tasks", sort_key=2)
AUDIT = Group("Audit", sort_key=3)


def _add(group: Group, name: str, help: str, *examples: str) -> None:
    title = "Example" if len(examples) == 1 else "Examples"
    lines = "\n".join(f"  {example}" for example in examples)
    module = name.replace("-", "_")
    app.command(
        f"api.cli.{module}:{module}",
        name=name,
        help=help,
        group=group,
        help_epilogue=f"{title}:\n{lines}",
    )


_add(
    RUN,
    "up",
    "Run everything on this machine: a Valkey of its own, the API, the roles behind it, workers.",
    "ledgerq up --handlers shop.handlers --workers 4",
    "ledgerq up --redis redis://localhost:6379/0",
)
_add(
    RUN,
    "api",
    "Run the REST API, on a Redis or Valkey that runs already.",
    "ledgerq api --redis redis://localhost:6379/0 --host 0.0.0.0",
)
_add(
    RUN,
    "worker",
    "Run worker processes, on a Redis or Valkey that runs already.",
    "ledgerq worker --handlers shop.handlers --processes 4 --redis redis://localhost:6379/0",
)
_add(
    RUN,
    "scheduler",
    "Release tasks when their time has come, and end the attempts of lost workers.",
    "ledgerq scheduler --redis redis://localhost:6379/0",
)
_add(
    RUN,
    "projector",
    "Keep the read models, which lists and statistics come from, level with the ledger.",
    "ledgerq projector --redis redis://localhost:6379/0 --read-model-dir /var/lib/ledgerq",
)
_add(
    RUN,
    "notifier",
    "Tell callback_urls of the ends of tasks, signed, again and again until they take it.",
    "ledgerq notifier --redis redis://localhost:6379/0 --callback-hosts 'hooks.example.org'",
)
# Its examples stand with its own commands: an App that is loaded lazily brings them itself.
app.command(
    "api.cli.archiver:app",
    name="archiver",
    help="Seal the ledger's events in the archive, signed, for good.",
    group=RUN,
)
_add(
    TASKS,
    "submit",
    "Hand over a task, or a file of them.",
    "ledgerq submit health_check --kb demo --payload '{\"hello\": 1}' --wait",
    "ledgerq submit document_processing --kb docs --payload @book.json",
    "ledgerq submit --batch tasks.jsonl --idempotency-key import-2025-11",
)
_add(
    TASKS,
    "status",
    "Show a task: as it is, as it was, or once it is finished.",
    "ledgerq status 0193b0c2-7d5e-7e10-8a51-3d0f6f2c9a11 --wait 30",
    "ledgerq status 0193b0c2-7d5e-7e10-8a51-3d0f6f2c9a11 --as-of 15m",
)
_add(
    TASKS,
    "list",
    "List tasks, by whatever they have in common.",
    "ledgerq list --status failed,canceled --created-after 1h",
    "ledgerq list --kb docs --search timeout --sort-by completed_at --page-size 50",
    "ledgerq list --status queued --sort-by priority --json",
)
_add(
    TASKS,
    "stats",
    "Count tasks by status, type and priority.",
    "ledgerq stats",
    "ledgerq stats --kb docs --created-after 7d --json",
    "ledgerq stats --as-of 2026-11-22T09:30:00Z",
)
_add(
    TASKS,
    "tail",
    "Show what happens, as it happens.",
    "ledgerq tail --kb docs --status completed,failed",
    "ledgerq tail --after beginning --json",
)
_add(
    TASKS,
    "cancel",
    "Cancel a task that is not finished; a running handler is stopped.",
    "ledgerq cancel 0193b0c2-7d5e-7e10-8a51-3d0f6f2c9a11",
)
_add(
    TASKS,
    "retry",
    "Queue a failed or canceled task again.",
    "ledgerq retry 0193b0c2-7d5e-7e10-8a51-3d0f6f2c9a11",
)
# Its examples stand with its own commands too.
app.command(
    "api.cli.dead_letters:app",
    name="dead-letters",
    help="Show failed tasks by the way in which they failed, and queue them again in bulk.",
    group=TASKS,
)
_add(
    TASKS,
    "pause",
    "Have no more tasks of a type taken, until `ledgerq resume`.",
    'ledgerq pause document_processing --reason "the disk is full"',
)
_add(
    TASKS,
    "resume",
    "Have tasks of a type taken again.",
    "ledgerq resume document_processing",
)
_add(
    TASKS,
    "limit",
    "Let no more than so many tasks of a type, or of a knowledge base, run at once.",
    "ledgerq limit type embedding_generation 4",
    "ledgerq limit kb docs 2",
    "ledgerq limit kb docs --remove",
)
_add(
    TASKS,
    "limits",
    "Show what is limited, and how much runs.",
    "ledgerq limits",
    "ledgerq limits --json",
)
_add(
    TASKS,
    "explain",
    "Say why a task waits, and what to do about it.",
    "ledgerq explain 0193b0c2-7d5e-7e10-8a51-3d0f6f2c9a11",
)
_add(
    TASKS,
    "workers",
    "Show the workers: what they serve, what they run, how much they have done.",
    "ledgerq workers",
    "ledgerq workers --json",
)
# Its examples stand with its own commands too.
app.command(
    "api.cli.subscriptions:app",
    name="subscriptions",
    help="Show who follows the ledger, how far behind each is, and what holds back trimming.",
    group=AUDIT,
)
app.command(
    "api.cli.retention:app",
    name="retention",
    help="Tell what of the ledger may leave Redis now, and what holds it back.",
    group=AUDIT,
)
_add(
    AUDIT,
    "history",
    "Show every event of a task (or of the system), oldest first.",
    "ledgerq history 0193b0c2-7d5e-7e10-8a51-3d0f6f2c9a11",
    "ledgerq history 0193b0c2-7d5e-7e10-8a51-3d0f6f2c9a11 --data-dir .ledgerq",
    "ledgerq history system",
)
_add(
    AUDIT,
    "verify",
    "Recompute the whole archive from its bytes, and name whatever is not as it was sealed.",
    "ledgerq verify",
    "ledgerq verify --archive /backup/objects --key ledgerq/0c83…/0+8791b4bd+AfonTUqM…",
    "ledgerq verify --archive s3://bucket/ledgerq --json",
)
_add(
    AUDIT,
    "prove",
    "Write a file that proves a task's history to whoever has the archive's public key.",
    "ledgerq prove 0193b0c2-7d5e-7e10-8a51-3d0f6f2c9a11 --output task.proof --wait 60",
)
_add(
    AUDIT,
    "check-proof",
    "Check a proof of a task's history, without the ledger and without settings.",
    "ledgerq check-proof task.proof --key ledgerq/4f0c…/3+1a2b3c4d+AYq…",
    "ledgerq check-proof task.proof --key @keys.txt --json",
)
_add(
    AUDIT,
    "replay",
    "Go through the events of the ledger again: print, count, fold or send them.",
    "ledgerq replay --from 15m --kb docs",
    "ledgerq replay --until 2026-11-05T08:30:00Z --view stats",
    "ledgerq replay --from 1h --speed 10 --to ws://localhost:9000/events",
    "ledgerq replay --archive /backup/objects --diff rules_of_last_year.py",
)
_add(
    AUDIT,
    "witness",
    "Cosign an archive's checkpoints as long as each goes on from the last one, as somebody else.",
    "ledgerq witness --log ledgerq/0c83…/0+8791b4bd+AfonTUqM… --host 0.0.0.0",
)
_add(
    AUDIT,
    "export",
    "Write events to a file, as JSON lines, CloudEvents or Parquet.",
    "ledgerq export --from 7d --kb docs --output events.jsonl",
    "ledgerq export --format parquet --archive /backup/objects --output events.parquet",
)
_add(
    AUDIT,
    "erase",
    "Remove for good what a finished task was about; that it was there stays provable.",
    'ledgerq erase 0193b0c2-7d5e-7e10-8a51-3d0f6f2c9a11 --reason "request 4711 of a customer"',
)
_add(
    AUDIT,
    "rebuild",
    "Make the read models anew from the ledger, or check that they are what it makes.",
    "ledgerq rebuild",
    "ledgerq rebuild stats --check",
)
_add(
    AUDIT,
    "doctor",
    "Check this installation and its server, and say what to do about what is wrong.",
    "ledgerq doctor",
    "ledgerq doctor --redis redis://localhost:6379/0 --json",
)
_add(
    AUDIT,
    "settings",
    "Show every setting, its value and where that comes from.",
    "ledgerq settings",
    "LEDGERQ_PORT=9000 ledgerq settings --json",
)
