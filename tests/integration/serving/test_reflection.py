"""Clients without generated code: by reflection, with the tools that people use."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from base64 import b64decode
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from cqrs.errors import VersionConflict
from tests.integration.serving.support import SERVICE, Running, Service, running

BUF = Path(sys.executable).with_name("buf")
VERSIONS = ("v1", "v1alpha")


async def ask(run: Running, version: str, request: ServerReflectionRequest) -> ServerReflectionResponse:
    call = run.channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=ServerReflectionRequest.SerializeToString,
        response_deserializer=ServerReflectionResponse.FromString,
    )(iter([request]))
    answers = [answer async for answer in call]
    assert len(answers) == 1
    return answers[0]


@pytest.mark.parametrize("version", VERSIONS)
def test_reflection_lists_all_services_itself_included(version: str) -> None:
    async def scenario() -> None:
        async with running() as run:
            answer = await ask(run, version, ServerReflectionRequest(list_services="*"))
            assert [service.name for service in answer.list_services_response.service] == [
                "grpc.health.v1.Health",
                "grpc.reflection.v1.ServerReflection",
                "grpc.reflection.v1alpha.ServerReflection",
                SERVICE,
            ]

    asyncio.run(scenario())


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "symbol", [SERVICE, "grpc.health.v1.Health", *(f"grpc.reflection.{v}.ServerReflection" for v in VERSIONS)]
)
def test_every_listed_service_can_be_described(version: str, symbol: str) -> None:
    async def scenario() -> None:
        async with running() as run:
            answer = await ask(run, version, ServerReflectionRequest(file_containing_symbol=symbol))
            files = [
                FileDescriptorProto.FromString(file) for file in answer.file_descriptor_response.file_descriptor_proto
            ]
            named = {f"{file.package}.{service.name}" for file in files for service in file.service}
            assert symbol in named

    asyncio.run(scenario())


async def output(*command: str | Path) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(60):
            stdout, stderr = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, stdout.decode(), stderr.decode()


async def conflict() -> None:
    raise VersionConflict("o-1", 3, 5)


@pytest.mark.skipif(not BUF.exists(), reason="buf is not installed")
def test_buf_curl_calls_by_reflection_and_shows_error_details() -> None:
    async def scenario() -> None:
        async with running() as run:
            command = (
                "curl",
                "--protocol",
                "grpc",
                "--http2-prior-knowledge",
                f"http://{run.server.address}/{SERVICE}/DescribeLog",
            )
            assert json.loads((await output(BUF, *command))[1]) == {"position": "7"}
            run.service.describe = conflict  # type: ignore[assignment]
            code, _, stderr = await output(BUF, *command)
            assert code != 0
            answer = json.loads(stderr)
            assert (answer["code"], answer["details"][0]["type"]) == ("aborted", "google.rpc.ErrorInfo")
            # buf knows no google.rpc messages and shows a detail's bytes.
            assert b"VERSION_CONFLICT" in b64decode(answer["details"][0]["value"] + "==")

    asyncio.run(scenario())


@pytest.mark.skipif(shutil.which("grpcurl") is None, reason="grpcurl is not installed")
def test_grpcurl_lists_describes_and_calls_by_reflection() -> None:
    async def scenario() -> None:
        async with running(Service()) as run:
            address = run.server.address
            assert SERVICE in (await output("grpcurl", "-plaintext", address, "list"))[1].split()
            described = await output(
                "grpcurl", "-plaintext", address, "describe", "grpc.reflection.v1.ServerReflection"
            )
            assert "rpc ServerReflectionInfo" in described[1]
            called = await output("grpcurl", "-plaintext", address, f"{SERVICE}/DescribeLog")
            assert json.loads(called[1]) == {"position": "7"}
            run.service.describe = conflict  # type: ignore[assignment]
            code, _, stderr = await output("grpcurl", "-plaintext", address, f"{SERVICE}/DescribeLog")
            assert code != 0
            assert "VERSION_CONFLICT" in stderr

    asyncio.run(scenario())
