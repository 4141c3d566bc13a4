"""Uploads: files stream to the object store, and a task is made for each.

    receive (api.multipart_form) -> stage (api.staging) -> check -> store (ledger.objects) -> submit

Everything is known and checked before the first object is stored, and an object is stored for good
before its task is submitted; so a task never points at an object that is not there, and the order
of fields and files does not matter. What was stored and came to no task is deleted at once where
that is certain, and else by the sweep (`consumers.orphans`), once no upload can be so old.
"""

import asyncio
import contextlib
from collections.abc import Generator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import structlog
import uuid_utils

from api.commands import REPLAYED_HEADER, last_positions
from api.describe import (
    IDEMPOTENCY_KEY_HEADER,
    LEDGER_POSITION,
    REPLAYED,
    WRITER_HEADERS,
    Answer,
    Group,
    operation,
)
from api.errors import ApiError, ErrorCode, invalid
from api.exchange import Exchange
from api.filing import Draft, Filing, uploaded_file
from api.intake import Intake
from api.kb_ids import KB_ID_EXPECTED
from api.multipart_form import FORM, FileHead, FormReader, boundary_of
from api.shared_answer import SharedAnswer
from api.staging import Place, StagedFile, Staging
from api.submissions import Submissions
from api.turns import Turns
from api.upload_fields import (
    STATUS,
    FileFacts,
    Uploaded,
    UploadFields,
    UploadForm,
    digest_of,
    field_bounds,
)
from consumers.meters import Meter
from ledger.codec import encode
from ledger.identity import derived_id
from ledger.objects import ObjectStoreError, objects_folder, open_objects, upload_key
from ledger.rejections import Rejection, RejectionCode
from ledger.settings import Settings
from ledger.store import Store
from ledger.task import Task
from ledger.transact import Committed

log = structlog.get_logger("uploads")

INCOMING: Final = "incoming"
"""The folder that files arrive in."""

EARLY_BYTES_MIN: Final = 4 * 1024 * 1024
"""Of a smaller body most has arrived before the ledger could tell whether it has room."""

EPOCH_FRESH_S: Final = 1.0
"""Which ledger it is is asked no more often, since each question takes a turn of a busy loop in
which nothing of the upload goes on. Where another ledger comes to this address meanwhile, and the
first one lives on elsewhere, its sweep takes the file for its own: as it does when that happens
while the file is stored."""

Incomer = tuple[FileHead, StagedFile]


class Uploads:
    """The endpoint. One of them in a process, since it keeps the bound on uploads at once."""

    def __init__(
        self,
        store: Store,
        intake: Intake,
        submissions: Submissions,
        settings: Settings,
        meter: Meter,
    ) -> None:
        self._store = store
        self._submissions = submissions
        self._settings = settings
        self._meter = meter
        self._fields = UploadFields(intake, settings)
        self._field_bounds = field_bounds(settings)
        self.objects = open_objects(settings)
        self._filing = Filing(store, self.objects, submissions)
        # On one file system with the objects, where they are files: they are moved then.
        folder = objects_folder(settings) or Path(settings.data_dir)
        self._staging = Staging(folder / INCOMING)
        self._turns = Turns()
        self._running = 0
        self._clearing: asyncio.Task[None] | None = None
        self._epoch = SharedAnswer(self._ask_epoch, EPOCH_FRESH_S)

    def start(self) -> None:
        """Clear away what a killed process left."""
        self._clearing = asyncio.get_running_loop().create_task(self._staging.clear())

    async def close(self) -> None:
        """End what runs beside the requests."""
        if self._clearing is not None:
            await asyncio.wait([self._clearing])
        await self._epoch.close()
        await self._staging.close()
        await self.objects.close()

    @operation(
        "uploadFiles",
        Group.TASKS,
        {
            201: Answer("The new tasks.", Uploaded, (LEDGER_POSITION,)),
            200: Answer("The tasks that the key made before.", Uploaded, (REPLAYED,)),
        },
        body=UploadForm,
        body_media_type=FORM,
        headers=(IDEMPOTENCY_KEY_HEADER, *WRITER_HEADERS),
        refusals=(RejectionCode.IDEMPOTENCY_CONFLICT, RejectionCode.QUEUE_FULL),
    )
    async def upload(self, exchange: Exchange) -> None:
        """Upload files.

        A task is made for each file. Its payload is the `payload` sent along, with what the file is
        merged in. Fields and files may come in any order.

        With an `Idempotency-Key`, the same files and fields again give the same tasks, and others
        are a conflict.
        """
        with self._place_for_upload():
            try:
                async with asyncio.timeout(self._settings.upload_timeout_s):
                    committed = await self._take(exchange)
            except TimeoutError:
                raise ApiError(
                    ErrorCode.REQUEST_TIMEOUT,
                    f"the upload was not done within {self._settings.upload_timeout_s} s",
                ) from None
            except ObjectStoreError as error:
                log.error("object_store_failed", reason=str(error))
                raise ApiError(
                    RejectionCode.SERVICE_UNAVAILABLE,
                    "the object store did not take the files; try again later",
                ) from error
        answer = encode(_uploaded([done.task for done in committed]))
        if any(done.position for done in committed):
            await exchange.respond(201, answer, last_positions(committed))
        else:
            await exchange.respond(200, answer, [REPLAYED_HEADER])

    @contextlib.contextmanager
    def _place_for_upload(self) -> Generator[None]:
        if self._running >= self._settings.uploads_max:
            raise Rejection(
                RejectionCode.SERVICE_UNAVAILABLE,
                f"{self._running} uploads are in work already; try again",
            )
        self._running += 1
        self._meter.uploads(running=1)
        try:
            yield
        finally:
            self._running -= 1
            self._meter.uploads(running=-1)

    async def _take(self, exchange: Exchange) -> list[Committed]:
        exchange.parameters()
        key = exchange.text_header("Idempotency-Key")
        meta = exchange.meta()
        exchange.no_coding()
        boundary = boundary_of(exchange.headers.get(b"content-type"))
        body = exchange.stream_body(self._settings.upload_body_bytes_max)
        await self._submissions.refuse_early()
        async with self._staging.place() as place:
            large = exchange.body_bytes is None or exchange.body_bytes > EARLY_BYTES_MIN
            incoming = Incoming(place, self._fields, self._submissions if large else None)
            reader = FormReader(
                boundary,
                self._field_bounds,
                incoming.open_file,
                files_max=self._settings.upload_files_max,
                file_bytes_max=self._settings.upload_file_bytes_max,
            )
            with self._turns.turn() as turn:
                fields = await reader.read(turn.pieces(body))
            epoch = await self._epoch.get()
            drafts = self._drafts(epoch, key, fields, incoming.files)
            committed = await self._filing.file(drafts, keyed=key is not None, meta=meta)
            size = sum(file.size for _, file in incoming.files)
            self._meter.uploads(files=len(drafts), size=size)
            return committed

    async def _ask_epoch(self) -> str:
        epoch = await self._store.epoch()
        if not epoch:
            raise Rejection(
                RejectionCode.SERVICE_UNAVAILABLE,
                "the server has no ledger any more: was it emptied? Start ledgerq again",
            )
        return epoch

    def _drafts(
        self,
        epoch: str,
        key: str | None,
        fields: Mapping[str, str],
        files: Sequence[Incomer],
    ) -> list[Draft]:
        if "kb_id" not in fields:
            raise invalid(
                "kb_id", KB_ID_EXPECTED, f"kb_id: expected {KB_ID_EXPECTED} (it is missing)"
            )
        if not files:
            raise invalid("file", "at least one file: a part with a file name")
        digest = "" if key is None else digest_of(fields, files)
        day = datetime.now(UTC).date()
        ids = [
            str(uuid_utils.uuid7()) if key is None else derived_id(fields["kb_id"], key, index)
            for index in range(len(files))
        ]
        facts = [
            FileFacts(
                upload_key(epoch, day, task_id, uuid_utils.uuid4().hex[:8], head.filename),
                head.filename,
                file.size,
                head.content_type,
                file.sha256,
            )
            for task_id, (head, file) in zip(ids, files, strict=True)
        ]
        submissions = self._fields.submissions(fields, facts, digest)
        return [
            Draft(task_id, file, each, submission)
            for task_id, (_, file), each, submission in zip(
                ids, files, facts, submissions, strict=True
            )
        ]


class Incoming:
    """The files of one upload, as they come in."""

    def __init__(self, place: Place, fields: UploadFields, submissions: Submissions | None) -> None:
        """`submissions` are asked whether they have room, where it is worth it."""
        self.files: list[Incomer] = []
        self._place = place
        self._fields = fields
        self._submissions = submissions

    async def open_file(self, head: FileHead, fields: Mapping[str, str]) -> StagedFile:
        """Where the next file goes. Before the first: what is known by then to be refused later is
        refused now."""
        if not self.files:
            submission = self._fields.early(fields)
            if submission is not None and self._submissions is not None:
                await self._submissions.refuse_early(submission.task_type, submission.priority)
        file = self._place.file()
        self.files.append((head, file))
        return file


def _uploaded(tasks: Sequence[Task]) -> Uploaded:
    ids = [task.id for task in tasks]
    files = [uploaded_file(task) for task in tasks]
    message = f"{len(files)} file{'s' * (len(files) != 1)} uploaded"
    return Uploaded(ids[0], ids, STATUS, message, files)
