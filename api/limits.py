"""/api/v1/limits: how many tasks of a type, or of a knowledge base, run at once at most."""

import asyncio
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from api.bodies import BodyReader
from api.describe import READING, SYSTEM_ETAG, Answer, Group, operation
from api.errors import invalid
from api.exchange import Exchange
from api.kb_ids import KB_ID_EXPECTED, is_kb_id
from api.known_types import check_types
from api.scalars import Count, KbId
from api.system_changes import (
    CHANGE_HEADERS,
    CHANGED_HEADERS,
    change_system,
    system_etag,
    system_marks,
)
from ledger.codec import encode
from ledger.rejections import RejectionCode
from ledger.settings import Settings
from ledger.store import Store
from ledger.system.commands import RemoveLimit, SetLimit
from ledger.system.events import LimitScope

BODY_BYTES_MAX: Final = 16 * 1024
LIMIT_MAX: Final = 100_000

Limit = Annotated[int, Meta(ge=1, le=LIMIT_MAX, description="How many tasks run at once at most.")]
Admitted = Annotated[
    Count,
    Meta(description="How many count against it now: those that run, and those next to be taken."),
]


class LimitBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A limit."""

    limit: Limit


class TypeLimit(msgspec.Struct, frozen=True):
    """The limit of a task type; null: none."""

    task_type: str
    limit: Limit | None
    admitted: Admitted


class KbLimit(msgspec.Struct, frozen=True):
    """The limit of a knowledge base; null: none."""

    kb_id: KbId
    limit: Limit | None
    admitted: Admitted


class LimitList(msgspec.Struct, frozen=True):
    """Every limit that is set, by name."""

    types: list[TypeLimit]
    kbs: list[KbLimit]


class Limits:
    """The endpoints; each takes an Exchange and answers it, or raises."""

    _body: Final = BodyReader(LimitBody, {"limit": f"a whole number from 1 to {LIMIT_MAX}"})

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._task_types = settings.known_task_types

    @operation("getLimits", Group.CONTROL, {200: Answer("The limits.", LimitList, (SYSTEM_ETAG,))})
    async def limits(self, exchange: Exchange) -> None:
        """List the limits, and how many tasks count against each of them now."""
        exchange.parameters()
        system = await self._store.load_system()
        state = system.state
        types, kbs = sorted(state.type_limits), sorted(state.kb_limits)
        of_types, of_kbs = await asyncio.gather(
            self._store.admitted(LimitScope.TYPE, types), self._store.admitted(LimitScope.KB, kbs)
        )
        found = LimitList(
            [TypeLimit(t, state.type_limits[t], n) for t, n in zip(types, of_types, strict=True)],
            [KbLimit(kb, state.kb_limits[kb], n) for kb, n in zip(kbs, of_kbs, strict=True)],
        )
        await exchange.respond(200, encode(found), [system_etag(system)])

    @operation(
        "setTypeLimit",
        Group.CONTROL,
        {200: Answer("The limit.", TypeLimit, CHANGED_HEADERS)},
        body=LimitBody,
        headers=CHANGE_HEADERS,
        refusals=(RejectionCode.VERSION_CONFLICT,),
    )
    async def set_type(self, exchange: Exchange) -> None:
        """Let no more than so many tasks of a type run at once.

        It takes effect within about a second. What runs goes on, so a lower limit is reached as
        tasks end.
        """
        await self._set(exchange, LimitScope.TYPE, self._type_of(exchange))

    @operation(
        "setKbLimit",
        Group.CONTROL,
        {200: Answer("The limit.", KbLimit, CHANGED_HEADERS)},
        body=LimitBody,
        headers=CHANGE_HEADERS,
        refusals=(RejectionCode.VERSION_CONFLICT, RejectionCode.TOO_MANY_LIMITS),
    )
    async def set_kb(self, exchange: Exchange) -> None:
        """Let no more than so many tasks of a knowledge base run at once.

        Those of all its types count together; else it is as with types. At most 1,000 knowledge
        bases can have a limit.
        """
        await self._set(exchange, LimitScope.KB, _kb_of(exchange))

    @operation(
        "removeTypeLimit",
        Group.CONTROL,
        {200: Answer("It has no limit.", TypeLimit, CHANGED_HEADERS)},
        headers=CHANGE_HEADERS,
        refusals=(RejectionCode.VERSION_CONFLICT, *READING),
    )
    async def remove_type(self, exchange: Exchange) -> None:
        """Let as many tasks of a type run as the workers have room for."""
        task_type = exchange.path_text("task_type")
        if task_type not in self._task_types:
            # One that has a limit may have left the settings since.
            limited = (await self._store.load_system()).state.type_limits
            check_types((task_type,), (*self._task_types, *limited))
        await self._remove(exchange, LimitScope.TYPE, task_type)

    @operation(
        "removeKbLimit",
        Group.CONTROL,
        {200: Answer("It has no limit.", KbLimit, CHANGED_HEADERS)},
        headers=CHANGE_HEADERS,
        refusals=(RejectionCode.VERSION_CONFLICT, *READING),
    )
    async def remove_kb(self, exchange: Exchange) -> None:
        """Let as many tasks of a knowledge base run as the workers have room for."""
        await self._remove(exchange, LimitScope.KB, _kb_of(exchange))

    def _type_of(self, exchange: Exchange) -> str:
        task_type = exchange.path_text("task_type")
        check_types((task_type,), self._task_types)
        return task_type

    async def _set(self, exchange: Exchange, scope: LimitScope, name: str) -> None:
        exchange.parameters()
        limit = self._body.read(await exchange.json_body(BODY_BYTES_MAX)).limit
        await self._change(exchange, SetLimit(scope, name, limit))

    async def _remove(self, exchange: Exchange, scope: LimitScope, name: str) -> None:
        exchange.parameters()
        await exchange.no_body()
        await self._change(exchange, RemoveLimit(scope, name))

    async def _change(self, exchange: Exchange, command: SetLimit | RemoveLimit) -> None:
        scope, name = command.scope, command.name
        done = await change_system(exchange, self._store, command)
        # Also where nothing was to be written: whoever wrote it may not have got so far.
        await self._store.spread_limits(done.system, done.before)
        [admitted] = await self._store.admitted(scope, (name,))
        limit = done.system.state.limits(scope).get(name)
        view = TypeLimit if scope is LimitScope.TYPE else KbLimit
        await exchange.respond(200, encode(view(name, limit, admitted)), system_marks(done))


def _kb_of(exchange: Exchange) -> str:
    kb_id = exchange.path_text("kb_id")
    if not is_kb_id(kb_id):
        raise invalid("kb_id", KB_ID_EXPECTED)
    return kb_id
