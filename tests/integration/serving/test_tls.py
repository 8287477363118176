"""TLS, with certificates made for each test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import trustme

from cqrs.errors import ConfigurationError
from cqrs.serving.tls import open_channel, server_credentials
from orderstream.events.v1.event_service_pb2 import DescribeLogRequest
from orderstream.events.v1.event_service_pb2_grpc import EventServiceStub
from orderstream_client import connect
from tests.integration.serving.support import running, settings


class Files:
    """A CA, and certificates of it, as the files that settings name."""

    def __init__(self, folder: Path, name: str) -> None:
        self._authority = trustme.CA(organization_name=name)
        self._folder = folder
        self._name = name
        self.ca = folder / f"{name}-ca.pem"
        self._authority.cert_pem.write_to_path(str(self.ca))

    def certificate(self, identity: str) -> dict[str, Path]:
        issued = self._authority.issue_cert(identity)
        certificate, key = (self._folder / f"{self._name}-{identity}.{kind}" for kind in ("crt", "key"))
        issued.private_key_pem.write_to_path(str(key))
        certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        return {"tls_certificate": certificate, "tls_key": key}


@pytest.fixture
def ours(tmp_path: Path) -> Files:
    return Files(tmp_path, "ours")


@pytest.fixture
def theirs(tmp_path: Path) -> Files:
    return Files(tmp_path, "theirs")


async def position(channel: grpc.aio.Channel) -> int:
    async with channel:
        return int((await EventServiceStub(channel).DescribeLog(DescribeLogRequest(), timeout=5)).position)


def test_with_a_certificate_the_server_speaks_tls_only(ours: Files) -> None:
    async def scenario() -> None:
        async with running(**ours.certificate("127.0.0.1")) as run:
            assert await position(connect(run.server.address, tls_server_ca=ours.ca)) == 7
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await position(connect(run.server.address))
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE

    asyncio.run(scenario())


def test_a_server_whose_certificate_is_of_another_ca_is_not_trusted(ours: Files, theirs: Files) -> None:
    async def scenario() -> None:
        async with running(**theirs.certificate("127.0.0.1")) as run:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await position(connect(run.server.address, tls_server_ca=ours.ca))
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE

    asyncio.run(scenario())


def test_with_a_client_ca_only_clients_of_that_ca_are_let_in(ours: Files, theirs: Files) -> None:
    def client(files: Files) -> dict[str, Any]:
        named = files.certificate("client")
        return {"tls_client_certificate": named["tls_certificate"], "tls_client_key": named["tls_key"]}

    async def scenario() -> None:
        async with running(**ours.certificate("127.0.0.1"), tls_client_ca=ours.ca) as run:
            assert await position(connect(run.server.address, tls_server_ca=ours.ca, **client(ours))) == 7
            for stranger in ({}, client(theirs)):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await position(connect(run.server.address, tls_server_ca=ours.ca, **stranger))
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE

    asyncio.run(scenario())


def test_servers_call_each_other_with_their_own_certificates(ours: Files) -> None:
    async def scenario() -> None:
        async with running(**ours.certificate("127.0.0.1"), tls_client_ca=ours.ca) as run:
            caller = settings(tls_server_ca=ours.ca, **ours.certificate("projector"))
            assert await position(open_channel(run.server.address, caller)) == 7

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "use", [server_credentials, lambda given: open_channel("x:1", given)], ids=["server", "caller"]
)
def test_a_missing_file_is_named(tmp_path: Path, use: Callable[[Any], object]) -> None:
    missing = tmp_path / "missing.pem"
    given = settings(tls_certificate=missing, tls_key=missing, tls_server_ca=missing)
    with pytest.raises(ConfigurationError, match=r"missing\.pem"):
        use(given)


def test_a_file_that_is_no_certificate_is_refused_at_the_start(tmp_path: Path) -> None:
    file = tmp_path / "not.pem"
    file.write_text("not a certificate")

    async def scenario() -> None:
        with pytest.raises(ConfigurationError, match="PEM"):
            async with running(tls_certificate=file, tls_key=file):
                pass

    asyncio.run(scenario())


@pytest.mark.parametrize("certificate", ["one", None])
def test_a_certificate_and_its_key_go_together(certificate: str | None, tmp_path: Path) -> None:
    file = tmp_path / "one.pem"
    with pytest.raises(ValueError, match="go together"):
        settings(tls_certificate=file if certificate else None, tls_key=None if certificate else file)
    with pytest.raises(ValueError, match="go together"):
        connect(
            "x:1", tls_client_certificate=file if certificate else None, tls_client_key=None if certificate else file
        )
