"""Many command servers on one PostgreSQL log: killed and paused at random, taking over from each other, in a row."""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import grpc.aio
import pytest

from cqrs.broker.connection import connect_broker
from cqrs.broker.embedded import EmbeddedBroker
from cqrs.records import EventRecord
from cqrs.store.sql import SqlEventStore
from cqrs.tokens import decode_token
from orderstream.orders.v1.commands_pb2 import (
    AddOrderItemRequest,
    ChangeShippingAddressRequest,
    CreateOrderRequest,
    CreateOrderResponse,
    UpdateOrderStatusRequest,
)
from orderstream.orders.v1.order_pb2 import Address, OrderItem, OrderStatus
from orderstream.types.v1.money_pb2 import Money
from tests.e2e.members import Member, members
from tests.integration.command_server.rig import order
from tests.integration.logs import assert_one_gapless_chain
from tests.integration.relay.test_relay import stream_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SERVERS = 4
CLIENTS = 16
"""At each server."""

CHAOS_SECONDS = 25.0
CALL_SECONDS = 4.0
SERVICE = "/orderstream.orders.v1.OrderCommandService"
SHARED = [f"shared-{number}" for number in range(5)]

Request = CreateOrderRequest | AddOrderItemRequest | ChangeShippingAddressRequest | UpdateOrderStatusRequest


class Answer(NamedTuple):
    """What became of a call."""

    response: bytes | None
    """None: it was refused, or nobody knows."""
    replayed: bool = False
    reason: str = ""
    unknown: bool = False
    """Nobody has told what became of it."""

    @property
    def version(self) -> int:
        return CreateOrderResponse.FromString(self.response or b"").version

    @property
    def position(self) -> int:
        # All responses of this service have their fields in common.
        return decode_token(CreateOrderResponse.FromString(self.response or b"").consistency_token).position


class Sent(NamedTuple):
    """A command of some client, and the last that it heard of it."""

    method: str
    request: Request
    answer: Answer


async def call(member: Member, method: str, request: Request) -> Answer:
    """One attempt."""
    raw: Any = member.server.channel.unary_unary(f"{SERVICE}/{method}")
    try:
        attempt = raw(request.SerializeToString(), timeout=CALL_SECONDS)
        response = await attempt
        replayed = ("x-idempotent-replayed", "true") in tuple(await attempt.trailing_metadata() or ())
    except grpc.aio.AioRpcError as error:
        certain = error.code() in (grpc.StatusCode.ABORTED, grpc.StatusCode.FAILED_PRECONDITION)
        return Answer(None, reason=f"{error.code().name}: {error.details()}", unknown=not certain)
    except (asyncio.CancelledError, grpc.aio.UsageError):  # its channel was closed with its server
        return Answer(None, reason="the connection was closed", unknown=True)
    return Answer(response, replayed)


class Client:
    """Sends one command after the other, to any server, each with a request id of its own."""

    def __init__(self, name: str, servers: Sequence[Member], chance: random.Random) -> None:
        self.name = name
        self.sent: list[Sent] = []
        self._servers = servers
        self._chance = chance
        self._orders: list[str] = []
        self._versions: dict[str, int] = {}

    async def work(self, until: float) -> None:
        while time.monotonic() < until:
            method, request = self._next_command()
            self.sent.append(await self._insist(method, request, until))

    async def _insist(self, method: str, request: Request, until: float) -> Sent:
        """Repeat it, elsewhere, until somebody tells what became of it; or sometimes leave it open."""
        while True:
            answer = await call(self._chance.choice(self._servers), method, request)
            if answer.response is not None:
                self._versions[request.order_id] = answer.version
                if method == "CreateOrder":
                    self._orders.append(request.order_id)
            if not answer.unknown or self._chance.random() < 0.2 or time.monotonic() > until:
                return Sent(method, request, answer)
            await asyncio.sleep(self._chance.random() / 5)

    def _next_command(self) -> tuple[str, Request]:
        chance, request_id = self._chance, f"{self.name}-{len(self.sent)}"
        shared = chance.random() < 0.5
        if not shared and (not self._orders or chance.random() < 0.3):
            return "CreateOrder", order(f"o-{request_id}", request_id=request_id)
        order_id = chance.choice(SHARED if shared else self._orders)
        seen = self._versions.get(order_id)
        expected = seen if seen and chance.random() < 0.3 else None
        if not shared and chance.random() < 0.3:
            status = chance.choice([OrderStatus.ORDER_STATUS_CONFIRMED, OrderStatus.ORDER_STATUS_PAID])
            return "UpdateOrderStatus", UpdateOrderStatusRequest(
                order_id=order_id, status=status, request_id=request_id, expected_version=expected
            )
        if not shared and chance.random() < 0.3:
            item = OrderItem(sku=request_id, name="More", quantity=1, unit_price=Money(currency_code="USD", units=1))
            return "AddOrderItem", AddOrderItemRequest(
                order_id=order_id, item=item, request_id=request_id, expected_version=expected
            )
        address = Address(recipient=request_id, lines=["A street"], city="A town", country_code="DE")
        return "ChangeShippingAddress", ChangeShippingAddressRequest(
            order_id=order_id, shipping_address=address, request_id=request_id, expected_version=expected
        )


async def make_trouble(servers: Sequence[Member], chance: random.Random, until: float) -> dict[str, int]:
    """Kill and pause servers at random, one after the other; returns how often each was done."""
    done: dict[str, int] = defaultdict(int)
    while time.monotonic() < until:
        member = chance.choice(servers)
        if chance.random() < 0.5:
            await member.kill()
            await asyncio.sleep(chance.random() / 2)
            await member.start()
            done["kills"] += 1
        else:
            # Shorter and longer than PostgreSQL lets a silent one keep the log's head.
            await member.pause(chance.choice([0.05, 0.3, 1.0, 6.5]))
            done["pauses"] += 1
        await asyncio.sleep(chance.random() / 2)
    return done


def test_servers_that_are_killed_and_paused_at_random_leave_one_history_and_tell_the_truth(
    tmp_path: Path, postgresql_write_db: str
) -> None:
    seed = random.randrange(2**32)  # the same in a run with the same --randomly-seed

    async def scenario() -> None:
        async with (
            EmbeddedBroker(tmp_path / "jetstream") as broker,
            members(SERVERS, tmp_path, postgresql_write_db, broker.url) as servers,
        ):
            await servers[0].server.register()
            for order_id in SHARED:
                assert (await call(servers[0], "CreateOrder", order(order_id))).response
            until = time.monotonic() + CHAOS_SECONDS
            clients = [
                Client(f"c{number}", servers, random.Random(seed + number)) for number in range(SERVERS * CLIENTS)
            ]
            working = asyncio.gather(*(client.work(until) for client in clients))
            # Two make trouble, each for servers of its own.
            trouble = await asyncio.gather(
                make_trouble(servers[:2], random.Random(seed), until),
                make_trouble(servers[2:], random.Random(seed + 1), until),
            )
            await working
            assert sum(done["kills"] for done in trouble)
            assert sum(done["pauses"] for done in trouble)
            await asyncio.sleep(2)  # attempts that nobody waits for any more come to their end
            log = read_log(postgresql_write_db)
            assert_one_gapless_chain(log)
            sent = [each for client in clients for each in client.sent]
            check_answers(log, sent)
            await check_retries(log, sent, servers[0])
            log = read_log(postgresql_write_db)
            assert_one_gapless_chain(log)
            await assert_stream_is(log, broker.url)

    asyncio.run(scenario())


def read_log(url: str) -> list[EventRecord]:
    store = SqlEventStore(url)
    try:
        log: list[EventRecord] = []
        while page := store.read_log(len(log) + 1, 1000):
            log.extend(page)
        return log
    finally:
        store.close()


def by_request(log: Sequence[EventRecord]) -> dict[str | None, list[EventRecord]]:
    found: dict[str | None, list[EventRecord]] = defaultdict(list)
    for event in log:
        found[event.request_id].append(event)
    return found


def check_answers(log: Sequence[EventRecord], sent: Sequence[Sent]) -> None:
    """What was acknowledged is there once, as it was acknowledged; what was refused is not there."""
    found = by_request(log)
    acknowledged = [each for each in sent if each.answer.response is not None]
    assert len(acknowledged) > 100, "the servers did some work"
    for _method, request, answer in sent:
        events = found[request.request_id]
        if answer.response is not None:
            if events:
                # No command of this test makes more than one event.
                assert [(event.position, event.version) for event in events] == [(answer.position, answer.version)]
            else:
                assert isinstance(request, UpdateOrderStatusRequest), "only a status can be as it was already"
        elif answer.unknown:
            assert len(events) <= 1
        else:
            assert events == [], answer


async def check_retries(log: Sequence[EventRecord], sent: Sequence[Sent], member: Member) -> None:
    """Sent again, each command is answered as it was; what nobody knew of is either replayed or done now."""
    found = by_request(log)
    opened = [each for each in sent if each.answer.unknown]
    settled = [each for each in sent if each.answer.response is not None]
    assert opened, "some were left open"
    for method, request, before in [*opened, *random.sample(settled, min(500, len(settled)))]:
        again = await call(member, method, request)
        assert not again.unknown, again
        if before.response is not None:
            assert (again.response, again.replayed) == (before.response, True)
        elif found[request.request_id]:
            (event,) = found[request.request_id]
            assert again.replayed
            assert (again.position, again.version) == (event.position, event.version)
        elif again.replayed:
            assert isinstance(request, UpdateOrderStatusRequest), "its outcome was stored without an event"
        elif again.response is not None:
            assert again.position > len(log) or isinstance(request, UpdateOrderStatusRequest)


async def assert_stream_is(log: Sequence[EventRecord], broker_url: str) -> None:
    client = await connect_broker(broker_url, "reader")
    deadline = time.monotonic() + 30
    while (await client.jetstream().stream_info("ORDERSTREAM")).state.last_seq < len(log):
        assert time.monotonic() < deadline, "the stream does not get to the end of the log"
        await asyncio.sleep(0.1)
    assert await stream_of(client) == log
    await client.close()
