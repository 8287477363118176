"""Every kind of event store, for the tests of what each of them guarantees."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cqrs.store.memory import MemoryEventStore
from cqrs.store.port import EventStore
from cqrs.store.sql import SqlEventStore
from tests.integration.logs import new_write_db


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EventStore]:
    opened: EventStore
    if request.param == "memory":
        opened = MemoryEventStore()
    elif request.param == "sqlite":
        opened = SqlEventStore(new_write_db(tmp_path))
    else:
        opened = SqlEventStore(request.getfixturevalue("postgresql_write_db"))
    yield opened
    opened.close()
