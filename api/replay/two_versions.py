"""Two versions of the rules, folded side by side: where they part."""

import importlib
import importlib.util
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, cast

import msgspec

from ledger import evolve as ours
from ledger.codec import Undecodable, encode
from ledger.events import Event
from ledger.store import Recorded
from ledger.task import FINISHED
from ledger.transitions import IllegalTransition

DIFFERENCES_MAX: Final = 100
"""Of so many tasks it is told where they part; of others, that they do."""


class Version(Protocol):
    """What a module has that says how tasks evolve: functions as those of `ledger.evolve`, over
    tasks of whatever shape they like."""

    def initial(self, task_id: str, event: Event, at: int) -> Any:
        """The task that its first event brings into being."""
        ...

    def evolve(self, task: Any, event: Event, at: int) -> Any:
        """The task after an event."""
        ...


class NoVersion(Exception):
    """A module that cannot be loaded, or lacks a function; says which and why."""


def load_version(name: str) -> Version:
    """The module of this name, or in this file. Raises NoVersion."""
    try:
        if name.endswith(".py"):
            spec = importlib.util.spec_from_file_location("ledgerq_other_version", Path(name))
            if spec is None or spec.loader is None:
                raise NoVersion(f"{name} cannot be loaded")
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module
            spec.loader.exec_module(module)
        else:
            sys.path.insert(0, str(Path.cwd()))
            module = importlib.import_module(name)
    except NoVersion:
        raise
    except (Exception, SystemExit) as error:  # whatever the module does
        raise NoVersion(f"{name} cannot be loaded: {_name_of(error)}") from error
    for function in ("initial", "evolve"):
        if not callable(getattr(module, function, None)):
            raise NoVersion(f"{name} has no function {function}, as ledger.evolve has")
    return cast("Version", module)


class Difference(msgspec.Struct, frozen=True):
    """The first event after which a task is not the same in both versions."""

    task_id: str
    position: str
    type: str
    version: int
    ours: Any
    theirs: Any


class Compared(msgspec.Struct, frozen=True):
    """What was found. `tasks` parted, of which `differences` are told."""

    events: int
    tasks: int
    differences: tuple[Difference, ...]


class TwoVersions:
    """`take` events, then look at `found`."""

    def __init__(
        self, other: Version, history: Callable[[str], Awaitable[Sequence[Recorded]]]
    ) -> None:
        self._other = other
        self._history = history
        self._living: dict[str, tuple[Any, Any]] = {}
        self._parted: set[str] = set()
        self._differences: list[Difference] = []
        self._events = 0

    @property
    def found(self) -> Compared:
        """So far."""
        return Compared(self._events, len(self._parted), tuple(self._differences))

    async def take(self, events: Sequence[Recorded]) -> None:
        """Fold events with both versions. Raises as the history does."""
        for event in events:
            self._events += 1
            if event.of_system or event.task_id in self._parted:
                continue
            if event.task_id not in self._living and event.version != 1:
                await self._take_up(event)
                if event.task_id in self._parted:
                    continue
            self._go_on(event)

    async def _take_up(self, event: Recorded) -> None:
        """A task that was over, or that began before all this."""
        for before in await self._history(event.task_id):
            if before.version >= event.version or event.task_id in self._parted:
                return
            self._go_on(before, keep=True)

    def _go_on(self, recorded: Recorded, *, keep: bool = False) -> None:
        mine, theirs = self._living.get(recorded.task_id, (None, None))
        try:
            event = recorded.event()
        except Undecodable as error:
            self._part(recorded, f"cannot be read: {error}", f"cannot be read: {error}")
            return
        mine = _apply(cast("Version", ours), mine, recorded, event)
        theirs = _apply(self._other, theirs, recorded, event)
        if not _same(mine, theirs):
            self._part(recorded, _told(mine), _told(theirs))
        elif isinstance(mine, _Failed):
            self._living.pop(recorded.task_id, None)
        elif mine.state.status in FINISHED and not keep:
            self._living.pop(recorded.task_id, None)
        else:
            self._living[recorded.task_id] = mine, theirs

    def _part(self, event: Recorded, mine: Any, theirs: Any) -> None:
        self._living.pop(event.task_id, None)
        self._parted.add(event.task_id)
        if len(self._differences) < DIFFERENCES_MAX:
            self._differences.append(
                Difference(
                    event.task_id, str(event.position), event.type, event.version, mine, theirs
                )
            )


class _Failed(msgspec.Struct, frozen=True):
    """What a version raised in the place of a task."""

    error: str


def _apply(version: Version, before: Any, recorded: Recorded, event: Event) -> Any:
    try:
        if before is None:
            return version.initial(recorded.task_id, event, recorded.at)
        return version.evolve(before, event, recorded.at)
    except IllegalTransition as error:
        return _Failed(f"IllegalTransition: {error}")
    except (Exception, SystemExit) as error:  # whatever the other version does
        return _Failed(_name_of(error))


def _same(mine: Any, theirs: Any) -> bool:
    if isinstance(mine, _Failed) or isinstance(theirs, _Failed):
        return type(mine) is type(theirs)
    try:
        if mine == theirs:
            return True
    except (Exception, SystemExit):  # noqa: S110 - tasks of its own need not be comparable
        pass
    return _told(mine) == _told(theirs)


def _told(task: Any) -> Any:
    """A task's version and state as plain values: what its submission is, both were given."""
    if isinstance(task, _Failed):
        return {"error": task.error}
    try:
        return msgspec.json.decode(encode({"version": task.version, "state": task.state}))
    except (Exception, SystemExit) as error:  # whatever a task of the other version does
        return {"error": f"no task with a version and a state: {_name_of(error)}"}


def _name_of(error: BaseException) -> str:
    """As `repr`, which an exception of the other version may fail at."""
    try:
        return repr(error)
    except Exception:
        return type(error).__name__
