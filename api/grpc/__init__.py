"""The gRPC service: the same tasks as REST, and tasks for workers in any language.

`task_service.proto` is the contract; `task_service_pb2*` are made from it. The library is imported
as `grpc`, which this package does not hide: imports are absolute.
"""
