"""The check of the object store: whether uploads and the archive have somewhere to go."""

import asyncio
from typing import Final

from api.cli.checkup.finding import Finding, fail, ok
from api.cli.checkup.machine import disk, nearest_of
from ledger.objects import ObjectStoreError, objects_folder, open_objects
from ledger.settings import Settings

CHECK: Final = "object store"
TIMEOUT_S: Final = 10.0
NOTHING: Final = "doctor/"
"""Nobody keeps anything below this."""

REASON_CHARACTERS_MAX: Final = 300


async def object_store(settings: Settings) -> list[Finding]:
    """Of a bucket, which is asked for nothing in particular; of a folder, room on its disk."""
    folder = objects_folder(settings)
    if folder is not None:
        return [disk(CHECK, nearest_of(folder), "nothing is archived, and uploads are refused")]
    url = settings.object_store_url
    try:
        await _ask(settings)
    except TimeoutError:
        reason = f"there was no answer within {TIMEOUT_S:g} s"
    except (ObjectStoreError, OSError, ValueError) as error:
        reason = str(error)[:REASON_CHARACTERS_MAX]
    else:
        return [ok(CHECK, f"{url} answers")]
    advice = (
        "see that the bucket is there, and AWS_ENDPOINT_URL and the credentials in the environment:"
        " without it uploads are refused, nothing is archived, and a new read model is not made"
    )
    return [fail(CHECK, f"{url}: {reason}", advice)]


async def _ask(settings: Settings) -> None:
    objects = open_objects(settings)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            async for _ in objects.listed(NOTHING):
                return
    finally:
        await objects.close()
