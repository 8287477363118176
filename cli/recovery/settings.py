"""What a recovery works on, and how it gets at the broker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import NamedTuple

from nats.aio.client import Client

from cli.failures import Unavailable
from cli.targets import BrokerTarget, existing_write_db, find_broker, read_db
from cqrs.broker.connection import connect_broker
from cqrs.relay.stream import StreamSettings


class RecoverySettings(NamedTuple):
    """One installation."""

    write_db_url: str
    read_db_url: str
    """It may be of a database that does not exist: the projector makes it."""
    broker: BrokerTarget
    stream: StreamSettings


@contextmanager
def recovery_settings(
    data: Path, urls: tuple[str, str, str], names: tuple[str, str], replicas: int = 1
) -> Iterator[RecoverySettings]:
    """Find out what there is. If nothing runs on the data directory, it is kept from starting meanwhile.

    Args:
        data: the data directory; what has no URL is looked for there.
        urls: of write DB, read DB and broker; empty ones are those of `data`.
        names: of the stream, and the first token of its subjects.
        replicas: copies of each message, should the stream be made anew.

    Raises:
        NotUsable: there is no write DB, or no data directory to take a broker from.
    """
    with ExitStack() as stack:
        write_db_url = existing_write_db(data, urls[0])
        broker = find_broker(stack, data, urls[2])
        yield RecoverySettings(write_db_url, read_db(data, urls[1]), broker, StreamSettings(*names, replicas))


@asynccontextmanager
async def broker_client(settings: RecoverySettings) -> AsyncIterator[Client]:
    """A connection to the broker, which is started for that if the system does not run.

    Raises:
        Unavailable: it cannot be reached.
        BrokerFailed: it does not start.
        UnsupportedBroker: it is too old.
    """
    url, own = settings.broker.url, settings.broker.broker
    if own is not None:
        await own.start()
        url = own.url
    try:
        client = await _connect(url)
        try:
            yield client
        finally:
            await client.close()
    finally:
        if own is not None:
            await own.stop()


async def _connect(url: str) -> Client:
    try:
        return await connect_broker(url, "orderstream-recovery")
    except ConnectionError as error:
        raise Unavailable(str(error), hint="say where the broker is with --nats-url URL") from error
