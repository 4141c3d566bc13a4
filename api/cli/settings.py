"""`ledgerq settings`"""

from api.cli.flags import AsJson, load_settings
from api.cli.output import on_terminal, print_json, print_table, shortened

DEFAULT_NOTE = "every one can be set as a LEDGERQ_ variable or a key of ledgerq.toml"


def settings(*, json: AsJson = False) -> None:
    """Passwords in URLs are not shown."""
    loaded = load_settings()
    if json:
        print_json(
            [
                {
                    "name": knob.name,
                    "value": getattr(loaded.settings, knob.name) if "***" not in value else value,
                    "source": str(source),
                    "variable": knob.env,
                    "description": knob.description,
                }
                for knob, value, source in loaded.rows()
            ]
        )
        return
    rows = [
        (knob.name, shortened(value, 38) if on_terminal() else value, str(source))
        for knob, value, source in loaded.rows()
    ]
    print_table(("setting", "value", "from"), rows)
    if on_terminal():
        print(DEFAULT_NOTE)
