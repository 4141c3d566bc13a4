"""The schemas of an OpenAPI document, and what its endpoints have in common."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import msgspec

from api.scalars import SETTING_MARK
from ledger.allow_list import Entry, parse_entry
from ledger.settings import Settings

Schema = dict[str, Any]

REF: Final = "#/components/schemas/{name}"


class Parts:
    """What stands under `components`, and the schemas of query structs, which do not."""

    def __init__(self, types: Sequence[Any], queries: Sequence[type[msgspec.Struct]]) -> None:
        kinds = [*types, *queries]
        schemas, shapes = msgspec.json.schema_components(kinds, ref_template=REF)
        self._shapes = {repr(kind): schema for kind, schema in zip(kinds, schemas, strict=True)}
        self._queries = {of.__name__: shapes.pop(of.__name__) for of in set(queries)}
        self.components: Schema = {"schemas": shapes}

    def shape(self, kind: Any) -> Schema:
        """The schema of one of `types`."""
        return self._shapes[repr(kind)]

    def query(self, kind: type[msgspec.Struct]) -> Schema:
        """The schema of one of `queries`: the struct itself, not a reference to it."""
        return self._queries[kind.__name__]

    def shared(self, kind: str, name: str, value: Schema) -> Schema:
        """A reference to `value`, kept once under its name; or `value` itself, where its name
        stands for something else already."""
        known = self.components.setdefault(kind, {}).setdefault(name, value)
        return {"$ref": f"#/components/{kind}/{name}"} if known == value else value


def finished(document: Schema, settings: Settings) -> Schema:
    """The document with what depends on the settings, and with the names that callers know."""
    return _finished(document, _of_settings(settings))


def _of_settings(settings: Settings) -> Mapping[str, Schema]:
    """What the settings add to a schema that is marked with their name."""
    return {
        "task_types": {"enum": list(settings.known_task_types)},
        "callback_hosts": {"pattern": _callback_pattern(settings.callback_hosts)},
        "wait_seconds_max": {
            "maximum": settings.wait_seconds_max,
            "examples": [settings.wait_seconds_max],
        },
        "batch_items_max": {"maxItems": settings.batch_items_max},
        "upload_files_max": {"maxItems": settings.upload_files_max},
    }


_PORT: Final = (
    "(80|443|102[4-9]|10[3-9][0-9]|1[1-9][0-9]{2}|[2-9][0-9]{3}|[1-5][0-9]{4}|6[0-4][0-9]{3}"
    "|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
)
_BYTE: Final = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_LABEL: Final = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"


def _callback_pattern(hosts: Sequence[str]) -> str:
    """What callback_urls look like: all that it matches is taken. Networks whose addresses no
    simple pattern tells are left out, and checked all the same."""
    told = (_in_url(parse_entry(host)) for host in hosts)
    return rf"^https?://({'|'.join(filter(None, told))})([/?][!-\"$-\[\]-~]*)?$"


def _in_url(entry: Entry) -> str:
    network, port = entry.network, rf"(:{_PORT})?" if entry.port is None else f":{entry.port}"
    if network is None:
        name = entry.name.replace(".", r"\.")
        return (rf"{_LABEL}\." if entry.is_suffix else "") + name + port
    if network.version == 6:
        whole = network.prefixlen == network.max_prefixlen
        return rf"\[{network.network_address}\]{port}" if whole else ""
    if network.prefixlen % 8:
        return ""
    known = str(network.network_address).split(".")[: network.prefixlen // 8]
    return r"\.".join([*known, *[_BYTE] * (4 - len(known))]) + port


def _finished(node: Any, of_settings: Mapping[str, Schema]) -> Any:
    """The same JSON with marks of settings filled in, and with the structs' names as callers know
    them: `TaskView` is a Task, `SubmissionBody` a Submission."""
    match node:
        case dict():
            named = cast("Schema", node)
            mark = named.get(SETTING_MARK)
            if isinstance(mark, str):
                named = {k: v for k, v in named.items() if k != SETTING_MARK} | of_settings[mark]
            return {_public(k): _finished(_renamed(k, v), of_settings) for k, v in named.items()}
        case list():
            return [_finished(item, of_settings) for item in cast("list[Any]", node)]
        case _:
            return node


_PUBLIC: Final = re.compile(r"^(#/components/schemas/)?([A-Z]\w*?)(View|Body)$")


def _public(name: str) -> str:
    return _PUBLIC.sub(r"\1\2", name)


def _renamed(key: str, value: Any) -> Any:
    return _public(value) if key in ("$ref", "title") and isinstance(value, str) else value
