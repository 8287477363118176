"""Listens to where the log is: a projection's lag is known also when nothing arrives, and a restore is noticed."""

from __future__ import annotations

from collections.abc import Callable

from nats.aio.msg import Msg

from cqrs.projection.runner import Broker
from cqrs.serving.stop import StopSignal
from cqrs.subjects import heartbeat_subject
from orderstream.events.v1.heartbeat_pb2 import LogHeartbeat


async def follow_heartbeats(
    broker: Broker, prefix: str, heard: Callable[[LogHeartbeat], None], stop: StopSignal
) -> None:
    """Call `heard` with each heartbeat of the relay, until the process should stop."""

    async def on_heartbeat(message: Msg) -> None:
        heard(LogHeartbeat.FromString(message.data))

    if await broker.wait_connected(stop):
        # The client subscribes again by itself when it reconnects.
        await broker.client.subscribe(heartbeat_subject(prefix), cb=on_heartbeat)
        await stop.wait()
