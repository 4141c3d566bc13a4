"""`ledgerq prove`"""

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from api.cli.client import Service, ServiceRefused
from api.cli.failures import CliError, NotWhole
from api.cli.flags import DataDir, RedisUrl, TaskId, Url, load_settings, service_url
from api.cli.reading import ArchiveAt, Epoch
from ledger.archive.prover import NotSealed
from ledger.settings import Settings

if TYPE_CHECKING:
    from ledger.archive.proof import Proof

POLL_S: Final = 0.5
"""While the archive has not got everything yet."""

NOT_SEALED: Final = "NOT_SEALED"
"""What the service says then."""


def prove(
    task_id: TaskId,
    /,
    *,
    output: Annotated[
        Path | None,
        Parameter(help="the file to write; without it, standard output", metavar="FILE"),
    ] = None,
    tlog_proofs: Annotated[
        Path | None,
        Parameter(help="also a C2SP tlog-proof of each event, into this folder", metavar="DIR"),
    ] = None,
    wait: Annotated[
        float,
        Parameter(help="so long for the last events to be sealed", metavar="SECONDS"),
    ] = 0.0,
    data_dir: Annotated[DataDir, Parameter(help="read the ledger in this folder itself")] = None,
    redis_url: Annotated[RedisUrl, Parameter(help="read the ledger on this server itself")] = None,
    url: Url = None,
    archive: Annotated[
        ArchiveAt,
        Parameter(
            help="read this archive alone, a folder or s3://bucket/prefix: what was sealed of the"
            " task up to its last checkpoint"
        ),
    ] = None,
    epoch: Epoch = None,
) -> None:
    """Asks the service; with --data-dir or --redis it reads the ledger and its archive itself.
    Exit code 3 while the archive has not got all of the task's events yet."""
    if archive is None:
        written = _asked(task_id, wait, data_dir, redis_url, url)
    elif data_dir is not None or redis_url is not None or url is not None:
        raise CliError("--archive: is read alone, without --data-dir, --redis and --url")
    else:
        written = asyncio.run(_from_archive_alone(archive, epoch, task_id))
    try:
        if tlog_proofs is not None:
            _write_each(task_id, written, tlog_proofs)
        if output is None:
            sys.stdout.buffer.write(written)
        else:
            output.write_bytes(written)
            print(f"ledgerq: {output}: {len(written):,} bytes", file=sys.stderr)
    except OSError as error:
        raise CliError(f"{error.filename}: {error.strerror}") from error


def _asked(
    task_id: str, wait_s: float, data_dir: str | None, redis_url: str | None, url: str | None
) -> bytes:
    if data_dir is None and redis_url is None:
        with Service(service_url(url)) as service:
            return _sealed(lambda: service.proof(task_id), wait_s)
    settings = load_settings(data_dir=data_dir, redis_url=redis_url).settings
    return _sealed(lambda: asyncio.run(_from_archive(settings, task_id)), wait_s)


def _sealed(proof: Callable[[], bytes], wait_s: float) -> bytes:
    deadline = time.monotonic() + wait_s
    while True:
        try:
            return proof()
        except (ServiceRefused, NotSealed) as error:
            if isinstance(error, ServiceRefused) and error.code != NOT_SEALED:
                raise
            if time.monotonic() >= deadline:
                raise NotWhole(f"{error}: give --wait SECONDS") from error
        time.sleep(max(0.0, min(POLL_S, deadline - time.monotonic())))


async def _from_archive(settings: Settings, task_id: str) -> bytes:
    from api.cli.open_ledger import open_ledger
    from ledger.archive.prover import prove_task
    from ledger.archive.reader import Archive
    from ledger.objects import ObjectStoreError, open_objects

    _check_id(task_id)
    async with open_ledger(settings) as store:
        objects = open_objects(settings)
        archive = Archive(objects, await store.epoch(), store.partitions)
        task = await store.load(task_id)
        try:
            proof = await prove_task(archive, task_id, None if task is None else task.version)
        except ObjectStoreError as error:
            raise CliError(f"the object store: {error}") from error
        finally:
            await objects.close()
    return _written(proof, task_id)


async def _from_archive_alone(where: str, epoch: str | None, task_id: str) -> bytes:
    from api.cli.archives import archive_settings, find_archive
    from ledger.archive.prover import prove_from
    from ledger.archive.reader import Archive
    from ledger.objects import ObjectStoreError, open_objects

    _check_id(task_id)
    objects = open_objects(archive_settings(load_settings().settings, where))
    try:
        found = await find_archive(objects, epoch, (), None)
        archive = Archive(objects, found.epoch, max(found.partitions) + 1)
        proof = await prove_from(archive, found.partitions, task_id)
    except ObjectStoreError as error:
        raise CliError(f"the object store: {error}") from error
    finally:
        await objects.close()
    return _written(proof, task_id)


def _check_id(task_id: str) -> None:
    from ledger.identity import is_task_id

    if not is_task_id(task_id):
        raise _no_task(task_id)


def _no_task(task_id: str) -> CliError:
    return CliError(f"there is no task with the id {task_id} (TASK_NOT_FOUND)")


def _written(proof: "Proof | None", task_id: str) -> bytes:
    from ledger.archive.proof import write_proof

    if proof is None:
        raise _no_task(task_id)
    return write_proof(proof)


def _write_each(task_id: str, written: bytes, folder: Path) -> None:
    from ledger.archive.proof import read_proof
    from ledger.archive.tlog_proof import SUFFIX, tlog_proofs

    folder.mkdir(parents=True, exist_ok=True)
    for number, text in enumerate(tlog_proofs(read_proof(written)), 1):
        (folder / f"{task_id}-{number}{SUFFIX}").write_text(text)
