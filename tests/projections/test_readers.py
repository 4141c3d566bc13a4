"""Readers: which file they ask, whatever becomes of it meanwhile."""

from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from ledger.memory_store import MemoryStore
from projections.model_files import ModelFiles
from projections.readers import Readers, Unavailable
from projections.rebuild import Rebuild
from tests.contracts.store import submit
from tests.projections.test_projector import count
from tests.projections.watching import projecting


@pytest.fixture
def readers(tmp_path: Path) -> Generator[Readers]:
    opened = Readers(tmp_path)
    yield opened
    opened.close()


async def test_a_question_that_meets_a_swap_is_put_to_the_new_file(
    memory: MemoryStore, tmp_path: Path, readers: Readers, monkeypatch: pytest.MonkeyPatch
):
    await submit(memory)
    async with projecting(memory, tmp_path) as watched:
        await watched.level()
    old = watched.files.current()
    rebuild = Rebuild(watched.files, memory)
    await rebuild.build()
    await rebuild.swap()
    monkeypatch.setattr(ModelFiles, "current", first(old, ModelFiles.current))

    assert await readers.ask(lambda db: count(db, "tasks")) == 1


async def test_a_file_that_is_gone_is_refused(
    memory: MemoryStore, tmp_path: Path, readers: Readers
):
    async with projecting(memory, tmp_path) as watched:
        await watched.level()
    live = watched.files.current()
    assert live is not None
    live.unlink()

    with pytest.raises(Unavailable, match="missing"):
        await readers.ask(lambda db: count(db, "tasks"))


def first(
    path: Path | None, then: Callable[[ModelFiles], Path | None]
) -> Callable[[ModelFiles], Path | None]:
    """`then`, but for the first call, which is answered `path`: it was made just before a swap."""
    answers = [path]
    return lambda files: answers.pop() if answers else then(files)
