"""Draws docs/transitions.md from the transition table: `python docs/draw_transitions.py`."""

import sys
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from ledger.task import FINISHED, Status  # noqa: E402 - found through the path above
from ledger.transitions import TRANSITIONS  # noqa: E402

PAGE = """\
# The life of a task

Drawn from `ledger/transitions.py` by `docs/draw_transitions.py`. An arrow is an event; what is not
here cannot happen. A failed attempt is `retrying` for as long as it takes to write the event that
follows it at once: `RetryScheduled` or `TaskFailed`.

```mermaid
stateDiagram-v2
{arrows}
```

| status | event | next status |
|---|---|---|
{rows}
"""


def arrows() -> str:
    """One arrow for each pair of statuses, naming all the events that lead along it."""
    steps = [
        (before or "[*]", after, kind.__name__) for (before, kind), after in TRANSITIONS.items()
    ]
    order = ["[*]", *Status]
    steps.sort(key=lambda step: (order.index(step[0]), order.index(step[1])))
    lines = [
        f"    {before} --> {after}: {', '.join(name for _, _, name in group)}"
        for (before, after), group in groupby(steps, key=lambda step: step[:2])
    ]
    return "\n".join(lines + [f"    {status} --> [*]" for status in Status if status in FINISHED])


def rows() -> str:
    """The table itself, in its own order."""
    return "\n".join(
        f"| {before or '(none)'} | {kind.__name__} | {after} |"
        for (before, kind), after in TRANSITIONS.items()
    )


def drawn() -> str:
    """The whole page."""
    return PAGE.format(arrows=arrows(), rows=rows())


if __name__ == "__main__":
    (ROOT / "docs" / "transitions.md").write_text(drawn())
