"""GET /api/v1/tasks/{task_id}/proof: what a third party can check of a task's history."""

from typing import Final

from api.describe import Answer, Group, operation
from api.errors import ApiError, ErrorCode, task_not_found
from api.exchange import Exchange
from ledger.archive.proof import Proof, write_proof
from ledger.archive.prover import NotSealed, prove_task
from ledger.archive.reader import Archive, Damaged, Incomplete
from ledger.identity import is_task_id
from ledger.objects import ObjectStore, ObjectStoreError
from ledger.rejections import Rejection, RejectionCode
from ledger.store import Store

PROOFS_MAX: Final = 4
"""Made at once in one process: each takes some milliseconds of reading and hashing."""


class Proofs:
    """The endpoint; takes an Exchange and answers it, or raises."""

    def __init__(self, store: Store, objects: ObjectStore) -> None:
        self._store = store
        self._objects = objects
        self._archive: Archive | None = None
        self._at_work = 0

    @operation(
        "getTaskProof",
        Group.TASKS,
        {200: Answer("The proof, as `ledgerq check-proof` takes it.", Proof)},
        refusals=(RejectionCode.TASK_NOT_FOUND, ErrorCode.NOT_SEALED),
    )
    async def proof(self, exchange: Exchange) -> None:
        """Prove a task's history.

        The file shows to whoever has the public key of the archive that these are all events of the
        task up to a signed checkpoint. While the archive has not got its last events, this is
        `NOT_SEALED`: ask again after `Retry-After`.
        """
        exchange.parameters()
        task_id = exchange.task_id
        if not is_task_id(task_id):
            raise task_not_found(task_id)
        if self._at_work >= PROOFS_MAX:
            raise _unavailable(f"{PROOFS_MAX} proofs are being made: try again")
        self._at_work += 1
        try:
            written = write_proof(await self._proved(task_id))
        finally:
            self._at_work -= 1
        await exchange.respond(200, written)

    async def _proved(self, task_id: str) -> Proof:
        task = await self._store.load(task_id)
        try:
            found = await prove_task(
                await self._opened(), task_id, None if task is None else task.version
            )
        except NotSealed as error:
            raise ApiError(
                ErrorCode.NOT_SEALED,
                f"{error}; an archiver does that every few seconds, where one runs: ask again",
                {"task_id": task_id, "version": error.version, "sealed_version": error.sealed},
            ) from error
        except (Damaged, Incomplete, ObjectStoreError) as error:
            raise _unavailable(f"the archive cannot prove it: {error}") from error
        if found is None:
            raise task_not_found(task_id)
        return found

    async def _opened(self) -> Archive:
        epoch = await self._store.epoch()
        if self._archive is None or self._archive.epoch != epoch:
            self._archive = Archive(self._objects, epoch, self._store.partitions)
        return self._archive


def _unavailable(message: str) -> Rejection:
    return Rejection(RejectionCode.SERVICE_UNAVAILABLE, message)
