"""The gRPC service: the same tasks as REST, and tasks for workers in any language.

`task_service.proto` is the contract; `task_service_pb2*` are made from it. The library is imported
as `grpc`, which this package does not hide: imports are absolute.
"""

import os

# No child of ours speaks gRPC on what it inherits; with this support, the library would write to
# standard error whenever one is started.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
