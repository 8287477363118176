"""Server reflection under both its names: v1, which current clients ask for, and v1alpha, which older ones do.

grpcio-reflection has v1alpha only. The messages of v1 are the same on the wire, so one servicer answers both; the
descriptor of v1 is derived from v1alpha's, so that the service can be described by itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection, reflection_pb2

REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"
REFLECTION_V1ALPHA = "grpc.reflection.v1alpha.ServerReflection"

_FILE_V1 = "grpc/reflection/v1/reflection.proto"


def reflection_handlers(services: Iterable[str]) -> dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]]:
    """The reflection services by name, each with its methods; they list `services` and themselves."""
    _register_v1_descriptor()
    servicer = reflection.aio.ReflectionServicer({*services, REFLECTION_V1, REFLECTION_V1ALPHA})
    methods = {
        "ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(
            servicer.ServerReflectionInfo,
            request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
            response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
    }
    return {REFLECTION_V1: methods, REFLECTION_V1ALPHA: methods}


def _register_v1_descriptor() -> None:
    pool = descriptor_pool.Default()
    try:
        pool.FindFileByName(_FILE_V1)
    except KeyError:
        file = FileDescriptorProto()
        reflection_pb2.DESCRIPTOR.CopyToProto(file)
        file.name = _FILE_V1
        file.package = "grpc.reflection.v1"
        for message in file.message_type:
            for field in message.field:
                if field.HasField("type_name"):
                    field.type_name = _renamed(field.type_name)
        for service in file.service:
            for method in service.method:
                method.input_type = _renamed(method.input_type)
                method.output_type = _renamed(method.output_type)
        pool.AddSerializedFile(file.SerializeToString())


def _renamed(type_name: str) -> str:
    return type_name.replace(".grpc.reflection.v1alpha.", ".grpc.reflection.v1.")
