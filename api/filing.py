"""Files that have arrived become objects, and then tasks; or neither.

An object belongs to one upload alone: of uploads that are sent again, each has objects of its own,
so none can overwrite or delete what a task points at.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec
import structlog

from api.errors import ApiError
from api.staging import StagedFile
from api.submissions import Submissions, cut_off
from api.upload_fields import FileFacts, UploadedFile
from ledger.codec import Meta
from ledger.events import TaskSubmitted
from ledger.objects import ObjectStore, ObjectStoreError
from ledger.rejections import Rejection, RejectionCode
from ledger.store import Store
from ledger.task import Task
from ledger.transact import Committed

log = structlog.get_logger("uploads")

DELETE_TIMEOUT_S: Final = 10.0
"""Beyond it, deleting is left to the sweep."""

_facts_of = msgspec.json.Decoder(FileFacts).decode


class Draft(msgspec.Struct, frozen=True):
    """A file that has arrived, and the task that is to be made for it."""

    task_id: str
    file: StagedFile
    facts: FileFacts
    submission: TaskSubmitted


class Filing:
    """Stores and submits."""

    def __init__(self, store: Store, objects: ObjectStore, submissions: Submissions) -> None:
        self._store = store
        self._objects = objects
        self._submissions = submissions

    async def file(self, drafts: Sequence[Draft], *, keyed: bool, meta: Meta) -> list[Committed]:
        """The tasks of the drafts, all of one type and priority, in their order. `keyed`: tasks of
        these ids may be there already; what came of the same upload is left as it is.

        Raises ApiError, Rejection and ObjectStoreError. When a part of the tasks was made, the
        error lists them.
        """
        known = await self._known(drafts) if keyed else {}
        new = [draft for draft in drafts if draft.task_id not in known]
        made: dict[str, Committed] = {}
        if new:
            submission = new[0].submission
            await self._submissions.refuse_early(submission.task_type, submission.priority)
            await self._put(new)
            made = await self._submit(new, meta)
        return [
            made.get(draft.task_id) or Committed(known[draft.task_id], (), None) for draft in drafts
        ]

    async def _known(self, drafts: Sequence[Draft]) -> dict[str, Task]:
        """What the key has made before. Raises ApiError when it was of another upload."""
        tasks = await asyncio.gather(*(self._store.load(draft.task_id) for draft in drafts))
        for task, draft in zip(tasks, drafts, strict=True):
            if task is not None and task.submission.body_sha256 != draft.submission.body_sha256:
                raise ApiError(
                    RejectionCode.IDEMPOTENCY_CONFLICT,
                    "this Idempotency-Key was used for another upload; send a new key, or the same"
                    " files and fields",
                    {"task_id": task.id},
                )
        return {task.id: task for task in tasks if task is not None}

    async def _put(self, drafts: Sequence[Draft]) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for draft in drafts:
                    group.create_task(self._put_one(draft))
        except BaseExceptionGroup as errors:
            await self._delete(drafts)
            raise errors.exceptions[0] from None
        except asyncio.CancelledError:
            await self._delete(drafts)
            raise

    async def _put_one(self, draft: Draft) -> None:
        facts = draft.facts
        await self._objects.put(facts.file_path, draft.file.path, facts.content_type)
        draft.file.taken()

    async def _submit(self, drafts: Sequence[Draft], meta: Meta) -> dict[str, Committed]:
        outcomes = await asyncio.gather(
            *(
                self._submissions.submit(d.task_id, d.submission, len(d.submission.payload), meta)
                for d in drafts
            ),
            return_exceptions=True,
        )
        pairs = list(zip(drafts, outcomes, strict=True))
        await self._delete([draft for draft, outcome in pairs if _is_left(draft, outcome)])
        committed = [outcome for outcome in outcomes if isinstance(outcome, Committed)]
        faults = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        if faults:
            raise cut_off(faults[0], committed, len(drafts))
        return {done.task.id: done for done in committed}

    async def _delete(self, drafts: Sequence[Draft]) -> None:
        """Delete the objects of these drafts, as far as they are there."""
        try:
            async with asyncio.timeout(DELETE_TIMEOUT_S):
                for draft in drafts:
                    await self._objects.delete(draft.facts.file_path)
        except (ObjectStoreError, TimeoutError) as error:
            log.warning("object_left_to_the_sweep", reason=str(error) or "no answer")


def uploaded_file(task: Task) -> UploadedFile:
    """What a task's payload says of its file."""
    facts = _facts_of(task.submission.payload)
    return UploadedFile(**msgspec.structs.asdict(facts), task_id=task.id)


def _is_left(draft: Draft, outcome: Committed | BaseException) -> bool:
    """Whether it is certain that no task points at the draft's object, nor will."""
    match outcome:
        case Committed(task):
            return uploaded_file(task).file_path != draft.facts.file_path
        case Rejection(code=code) | ApiError(code=code):
            # Out of reach: the submission may have been written all the same.
            return code is not RejectionCode.SERVICE_UNAVAILABLE
        case _:
            return False
