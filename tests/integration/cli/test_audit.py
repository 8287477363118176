"""`orderstream verify` on installations that are wrong in ways that a running system would not show."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

from cli.supervisor.data_directory import DataDirectory
from cqrs.broker.connection import connect_broker
from cqrs.broker.embedded import EmbeddedBroker
from cqrs.database.engine import open_engine
from cqrs.database.migrations import upgrade_schema
from cqrs.relay.publish import publish_batch
from cqrs.relay.stream import EMPTY_TAIL, StreamSettings, ensure_stream
from cqrs.store.sql import SqlEventStore
from readmodel.schema import READ_SCHEMA
from tests.integration.cli.installation import orderstream
from tests.integration.logs import append, new_write_db

STREAM = StreamSettings("ORDERSTREAM", "orderstream", 1)


def installation(data: Path) -> SqlEventStore:
    """A data directory without anything running, with an empty read DB."""
    DataDirectory(data).create()
    store = SqlEventStore(new_write_db(data))
    engine = open_engine(f"sqlite:///{data / 'read.db'}", access="write")
    upgrade_schema(engine, READ_SCHEMA)
    engine.dispose()
    return store


async def publish(data: Path, store: SqlEventStore, count: int) -> None:
    """Put the first `count` events of a log that has them onto the stream."""
    epoch = store.read_head().epoch
    async with EmbeddedBroker(data / "jetstream") as broker:
        client = await connect_broker(broker.url, "relay")
        await ensure_stream(client, STREAM, epoch)
        await publish_batch(client, STREAM, epoch, EMPTY_TAIL, store.read_log(1, count), 5)
        await client.close()


def test_a_stream_that_is_ahead_of_the_log_is_found(tmp_path: Path) -> None:
    """As after a restore of the log to an older point."""
    data = tmp_path / "data"
    store = installation(data)
    append(store, [("a", version) for version in range(1, 9)])
    asyncio.run(publish(data, store, 8))
    store.close()
    raw = sqlite3.connect(data / "write.db")
    raw.execute("DROP TRIGGER events_refuse_delete")
    raw.execute("DELETE FROM events WHERE position > 4")
    raw.execute(
        "UPDATE log_head SET (position, hash, record_time) = "
        "(SELECT position, hash, record_time FROM events WHERE position = 4)"
    )
    raw.commit()
    raw.close()
    done = orderstream("verify", "--data", str(data), "-o", "json")
    assert done.returncode == 1
    assert "it is ahead of the log: it ends at 8, the log at 4" in done.stdout


def test_an_event_behind_the_head_is_found(tmp_path: Path) -> None:
    data = tmp_path / "data"
    store = installation(data)
    append(store, [("a", version) for version in range(1, 9)])
    store.close()
    raw = sqlite3.connect(data / "write.db")
    raw.execute(
        "UPDATE log_head SET (position, hash, record_time) = "
        "(SELECT position, hash, record_time FROM events WHERE position = 7)"
    )
    raw.commit()
    raw.close()
    done = orderstream("verify", "--data", str(data), "-o", "json")
    assert done.returncode == 1
    assert "the head says 7, but there is an event at 8" in done.stdout
