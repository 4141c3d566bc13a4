"""A read model for tests of whatever stands on it: made from a store, or brought level with one.

model = await read_model(store, tmp_path)     # makes it, installs it
await submit(store)
await bring_level(model, store)               # again and again
tmp_path / "current" names model's file       # readers find it as they do in a service
"""

from pathlib import Path

from ledger.store import Store
from projections.catch_up import bring_level
from projections.model_files import ModelFiles
from projections.read_model import ReadModel
from projections.sqlite import create, finish, open_writer

__all__ = ["bring_level", "read_model"]


async def read_model(store: Store, folder: Path) -> ReadModel:
    """The live read model in `folder`, made if there is none, and level with the store.

    Close its `db` at the end of the test.
    """
    files = ModelFiles(folder)
    path = files.current()
    if path is None:
        path = files.next_path()
        db = create(path)
        finish(db)
        db.close()
        files.install(path)
    model = ReadModel(open_writer(path), partitions=store.partitions, epoch=await store.epoch())
    await bring_level(model, store)
    return model
