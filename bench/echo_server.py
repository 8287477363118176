"""The yardstick: a gRPC server that does nothing but return what it is sent.

As bare as grpc.aio allows: one generic handler, identity serialisers, no interceptors, uvloop as in the real servers.

    python -m bench.echo_server READY_FILE

writes its address into READY_FILE as the real servers do, and stops when its standard input ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import grpc
import uvloop

METHOD = "/bench.Echo/Echo"


class _Echo(grpc.GenericRpcHandler):
    """Answers every method with its request."""

    def __init__(self) -> None:
        self._handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(_echo)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        return self._handler


async def _echo(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
    return request


async def _serve(ready_file: Path) -> None:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((_Echo(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    unfinished = ready_file.with_suffix(".tmp")
    unfinished.write_text(json.dumps({"pid": os.getpid(), "grpc": f"127.0.0.1:{port}"}))
    unfinished.replace(ready_file)
    await asyncio.to_thread(sys.stdin.buffer.read)
    await server.stop(None)


if __name__ == "__main__":
    uvloop.run(_serve(Path(sys.argv[1])))
