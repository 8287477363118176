"""Rows of snapshots, put there and changed behind everybody's back."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from cqrs.snapshots.snapshot import Snapshot
from cqrs.store.memory import MemoryEventStore
from cqrs.store.port import EventStore
from cqrs.store.schema import snapshots
from cqrs.store.sql import SqlEventStore


def put(store: EventStore, snapshot: Snapshot) -> None:
    """Put a snapshot there as it is, right or wrong, and let all others alone."""
    if isinstance(store, SqlEventStore):
        key = [
            getattr(snapshots.c, name) == getattr(snapshot, name) for name in ("aggregate_id", "version", "fingerprint")
        ]
        with store._side_engine.begin() as connection:
            connection.execute(snapshots.delete().where(*key))
            connection.execute(snapshots.insert(), [snapshot._asdict()])
    else:
        assert isinstance(store, MemoryEventStore)
        store._snapshots[snapshot.aggregate_id, snapshot.version, snapshot.fingerprint] = snapshot


def change(store: EventStore, aggregate_id: str, **columns: Any) -> None:
    """Change columns of an aggregate's snapshots behind everybody's back."""
    if isinstance(store, SqlEventStore):
        with store._side_engine.begin() as connection:
            connection.execute(sa.update(snapshots).where(snapshots.c.aggregate_id == aggregate_id).values(**columns))
    else:
        assert isinstance(store, MemoryEventStore)
        for key, found in list(store._snapshots.items()):
            if key[0] == aggregate_id:
                store._snapshots[key] = found._replace(**columns)
