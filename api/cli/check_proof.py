"""`ledgerq check-proof`"""

import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from api.cli.archives import trusted_keys
from api.cli.failures import CliError, CouldNotCheck, NotWhole
from api.cli.flags import AsJson
from api.cli.output import counted, print_json, print_table, printable
from ledger.archive.leaf import Leaf
from ledger.archive.proof import PROOF_BYTES_MAX, BadProof, IncompleteProof, read_proof
from ledger.archive.proof_check import Shown
from ledger.archive.proof_check import check_proof as check
from ledger.codec import Meta, Undecodable, decode_meta
from ledger.moments import moment_text

Keys = Annotated[
    tuple[str, ...],
    Parameter(
        help="a public key of the archive, as `ledgerq archiver key` prints it, or @FILE with one a"
        " line; given more than once, any of them will do",
        metavar="KEY",
        negative=(),
    ),
]
Witnesses = Annotated[
    tuple[str, ...],
    Parameter(
        help="key of a witness that must have cosigned, or @FILE", metavar="KEY", negative=()
    ),
]


def check_proof(
    file: Annotated[
        str, Parameter(help="the proof; `-`: from standard input", allow_leading_hyphen=True)
    ],
    /,
    *,
    key: Keys,
    witness: Witnesses = (),
    json: AsJson = False,
) -> None:
    """Exit code 0: the proof holds. 1: it does not. 3: it holds, but the archive never had the
    first events of the task. 4: the file or a key cannot be read."""
    try:
        keys, witnesses = trusted_keys(key), trusted_keys(witness)
    except CliError as error:
        raise CouldNotCheck(str(error)) from error
    try:
        shown = check(read_proof(_read(file)), keys, witnesses)
    except IncompleteProof as error:
        raise NotWhole(f"{file}: it proves a part only: {error}") from error
    except BadProof as error:
        reason = printable(str(error))
        raise CliError(f"{file}: the proof does not hold: {reason}") from error
    if json:
        print_json(_as_json(shown))
    else:
        _print(shown)


def _read(file: str) -> bytes:
    try:
        if file == "-":
            return sys.stdin.buffer.read(PROOF_BYTES_MAX + 1)
        with Path(file).open("rb") as opened:
            return opened.read(PROOF_BYTES_MAX + 1)
    except OSError as error:
        raise CouldNotCheck(f"{file}: {error.strerror}") from error


def _print(shown: Shown) -> None:
    headings = ("#", "at", "event", "by")
    rows = [
        (str(leaf.version), _moment(leaf.at), leaf.type, _meta(leaf).actor) for leaf in shown.events
    ]
    if shown.erased:
        headings += ("data",)
        rows = [
            (*row, "erased" if leaf.version in shown.erased else "")
            for row, leaf in zip(rows, shown.events, strict=True)
        ]
    print_table(headings, rows)
    print(f"These are all events of the task {shown.task_id}{_until(shown)}.")
    print(f"It stands in the log {shown.origin}, which had {counted(shown.size, 'event')} by then.")
    for key in shown.signed_by:
        print(f"Signed by {key.vkey}")
    for witness in shown.cosigned_by:
        print(f"Cosigned by {witness.name} at {_moment(witness.at_s * 1000)}")


def _until(shown: Shown) -> str:
    if shown.last is None:
        return ""
    return f" up to the position {shown.last}, at {_moment(shown.last.order[0])}"


def _moment(ms: int) -> str:
    try:
        return moment_text(ms)
    except OverflowError:
        return f"{ms} ms"


def _meta(leaf: Leaf) -> Meta:
    """Who wrote an event; nobody where that cannot be read."""
    try:
        return decode_meta(leaf.meta)
    except Undecodable:
        return Meta()


def _as_json(shown: Shown) -> dict[str, Any]:
    return {
        "task_id": shown.task_id,
        "log": shown.origin,
        "size": shown.size,
        "complete_up_to": None if shown.last is None else str(shown.last),
        "complete_at": None if shown.last is None else _moment(shown.last.order[0]),
        "signed_by": [key.vkey for key in shown.signed_by],
        "cosigned_by": [
            {"name": each.name, "at": _moment(each.at_s * 1000)} for each in shown.cosigned_by
        ],
        "events": [
            {
                "position": str(leaf.position),
                "type": leaf.type,
                "version": leaf.version,
                "at": _moment(leaf.at),
                "meta": _meta(leaf),
                "erased": leaf.version in shown.erased,
            }
            for leaf in shown.events
        ],
    }
