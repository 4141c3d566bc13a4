"""What schemathesis is wrong about, or cannot know. It loads this file itself (SCHEMATHESIS_HOOKS).

Each exception is about one failure of one check, and says why it is none.
"""

import re
from typing import Any, Final

import schemathesis
from schemathesis.core.failures import Failure, ServerError
from schemathesis.core.transport import Response
from schemathesis.openapi.checks import RejectedPositiveData, UseAfterFree

from api.describe import IF_MATCH_HEADER, LEDGER_POSITION_WANTED
from api.event_stream import LAST_EVENT_ID

PATTERNS: Final = {
    header.name: re.compile(header.schema["pattern"])
    for header in (IF_MATCH_HEADER, LEDGER_POSITION_WANTED, LAST_EVENT_ID)
}


@schemathesis.hook  # pyright: ignore[reportUnknownMemberType] # typed in part
def filter_failure(_context: Any, failure: Failure, case: Any, response: Response) -> bool:
    """Whether the failure counts."""
    match failure:
        case UseAfterFree():
            # DELETE cancels a task: it stays, with its whole history.
            return False
        case ServerError():
            return not (
                _is_ahead_of_the_ledger(response)
                or _is_not_sealed(response)
                or _is_another_moment(response)
            )
        case RejectedPositiveData() if response.status_code == 426:
            # Nothing in OpenAPI says that a request must open a WebSocket.
            return False
        case RejectedPositiveData():
            error = response.json()
            return not (
                _exclude_each_other(error)
                or _is_beyond_the_end(error)
                or _is_of_another_query(error)
                or _is_wrong_header(case, error["details"]["field"])
            )
        case _:
            return True


def _is_ahead_of_the_ledger(response: Response) -> bool:
    """Who insists on a position that is not there yet waits for it, and is told in the end."""
    return response.status_code == 503 and "that Ledger-Position" in response.json()["message"]


def _is_not_sealed(response: Response) -> bool:
    """Nothing is proved before an archiver, which does not run here, has sealed it."""
    return response.status_code == 503 and response.json()["code"] == "NOT_SEALED"


def _is_another_moment(response: Response) -> bool:
    """Of the past, one moment at a time is looked up."""
    return response.status_code == 503 and "another moment is being" in response.json()["message"]


def _exclude_each_other(error: dict[str, Any]) -> bool:
    """OpenAPI has no words for query parameters of which only one may be sent."""
    return "they exclude each other" in error["message"]


def _is_beyond_the_end(error: dict[str, Any]) -> bool:
    """A schema cannot know where the ledger ends, nor how many partitions it has."""
    return "where the ledger ends" in error["message"] or "partition" in error["message"]


def _is_of_another_query(error: dict[str, Any]) -> bool:
    """A cursor comes from an answer, and a span of time begins before it ends."""
    return error["details"]["field"] in ("cursor", "created_after", "failed_after")


def _is_wrong_header(case: Any, name: str) -> bool:
    """The coverage phase puts letters and digits alone into headers. Where a pattern asks for other
    characters it sends the wrong value 0, and takes it for a valid one."""
    return name in PATTERNS and not PATTERNS[name].search(str(case.headers.get(name)))
