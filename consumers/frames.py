"""What a worker and the processes that run its handlers say to each other.

Each frame is a length (4 bytes, big-endian) and one of these structs as MessagePack.
"""

from typing import Any, BinaryIO, Final

import msgspec

from ledger.events import ErrorKind

FRAME_BYTES_MAX: Final = 64 << 20
LENGTH_BYTES: Final = 4


class Run(msgspec.Struct, frozen=True, tag="run"):
    """Run the handler of `task_type`. `payload` is JSON; `deadline_s` since the epoch."""

    task_type: str
    task_id: str
    attempt: int
    kb_id: str
    metadata: bytes
    deadline_s: float
    payload: bytes
    result_bytes_max: int
    traceparent: str | None = None


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """The handler reported progress."""

    percent: int
    message: str


class Returned(msgspec.Struct, frozen=True, tag="returned"):
    """The handler returned; its result as JSON."""

    result: bytes


class Raised(msgspec.Struct, frozen=True, tag="raised"):
    """The handler failed; `retry_after_ms` as in HandlerFailed."""

    kind: ErrorKind
    message: str
    retry_after_ms: int | None = None


Answer = Progress | Returned | Raised

encode_frame: Final = msgspec.msgpack.Encoder().encode
decode_run: Final = msgspec.msgpack.Decoder(Run).decode
_answers: Final = msgspec.msgpack.Decoder[Any](Answer)


def decode_answer(data: bytes) -> Answer:
    """Raises msgspec.MsgspecError for anything else."""
    return _answers.decode(data)


def pack(frame: Run | Answer) -> bytes:
    """The frame with its length in front."""
    data = encode_frame(frame)
    return len(data).to_bytes(LENGTH_BYTES, "big") + data


def read_frame(stream: BinaryIO) -> bytes | None:
    """The next frame of a blocking stream; None at its end."""
    head = stream.read(LENGTH_BYTES)
    if len(head) < LENGTH_BYTES:
        return None
    return stream.read(int.from_bytes(head, "big"))
