"""The object store: where uploaded files lie, in a folder of this machine or at an S3 endpoint."""

from ledger.objects.keys import is_upload_key, safe_name, task_of, upload_key
from ledger.objects.store import (
    Listed,
    ObjectStore,
    ObjectStoreError,
    objects_folder,
    open_objects,
)

__all__ = [
    "Listed",
    "ObjectStore",
    "ObjectStoreError",
    "is_upload_key",
    "objects_folder",
    "open_objects",
    "safe_name",
    "task_of",
    "upload_key",
]
