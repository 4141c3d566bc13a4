"""Uploads as tests send and examine them."""

import json
from pathlib import Path
from typing import Any, Final

import httpx2

from ledger.objects import objects_folder
from ledger.settings import Settings

UPLOAD: Final = "/api/v1/upload"
BOUNDARY: Final = "a-boundary"
FORM: Final = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}

Part = tuple[str, bytes]
"""The head of a part below `form-data; `, and its bytes."""


def field(name: str, value: str) -> Part:
    return f'name="{name}"', value.encode()


def file(content: bytes = b"hello", filename: str = "a.txt", name: str = "file") -> Part:
    return f'name="{name}"; filename="{filename}"', content


KB: Final = field("kb_id", "kb-1")


def form(*parts: Part, boundary: str = BOUNDARY) -> bytes:
    """The body of these parts."""
    return (
        b"".join(
            b"--%s\r\ncontent-disposition: form-data; %s\r\n\r\n%s\r\n"
            % (boundary.encode(), head.encode(), content)
            for head, content in parts
        )
        + b"--%s--\r\n" % boundary.encode()
    )


async def upload(api: httpx2.AsyncClient, *parts: Part, **headers: str) -> httpx2.Response:
    """POST these parts."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return await api.post(UPLOAD, content=form(*parts), headers={**FORM, **sent})


async def payload_of(api: httpx2.AsyncClient, task_id: str) -> dict[str, Any]:
    """The payload of a task."""
    answer = await api.get(f"/api/v1/tasks/{task_id}")
    assert answer.status_code == 200, answer.text
    return json.loads(answer.content)["payload"]


def files_in(settings: Settings) -> list[Path]:
    """Every file of the object store's folder: objects, and what is still arriving."""
    folder = objects_folder(settings)
    assert folder is not None
    return sorted(path for path in folder.rglob("*") if path.is_file())
