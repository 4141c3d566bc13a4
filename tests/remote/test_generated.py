"""The generated code is what the proto makes, and the proto is what others build on."""

import re
import subprocess
import sys
from pathlib import Path

import api.grpc
from api.grpc import task_service_pb2 as pb

FOLDER = Path(api.grpc.__file__).parent
ROOT = FOLDER.parent.parent

_VERSION = re.compile(r"\d+\.\d+\.\d+|^    \d+,$|_VERSION.*", re.MULTILINE)


def test_the_generated_code_is_made_from_the_proto(tmp_path: Path):
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]

    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", "-I.", *outputs, "api/grpc/task_service.proto"],
        cwd=ROOT,
        check=True,
        timeout=50,
    )

    made = sorted((tmp_path / "api" / "grpc").iterdir())
    assert [path.name for path in made] == [
        "task_service_pb2.py",
        "task_service_pb2.pyi",
        "task_service_pb2_grpc.py",
    ]
    for path in made:
        assert _plain(path) == _plain(FOLDER / path.name), (
            "make it again: .venv/bin/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. "
            "--grpc_python_out=. api/grpc/task_service.proto"
        )


def test_every_method_of_the_proto_is_one_of_the_service():
    service = pb.DESCRIPTOR.services_by_name["TaskService"]

    assert service.full_name == "ledgerq.v1.TaskService"
    assert {"SubmitTask", "SubmitBatch", "GetTask", "ListTasks", "CancelTask", "RetryTask"} | {
        "GetPendingTasks",
        "UpdateStatus",
        "Heartbeat",
        "WatchTasks",
    } <= {method.name for method in service.methods}


def _plain(path: Path) -> str:
    """Without the versions of what made it."""
    return _VERSION.sub("", path.read_text())
