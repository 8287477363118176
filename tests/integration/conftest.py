"""What integration tests share: a PostgreSQL for each test process, started when the first test asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.postgresql import Databases, databases, text_of


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Databases]:
    """Databases on a real PostgreSQL."""
    with databases() as found:
        yield found


@pytest.fixture
def postgresql_write_db(postgresql: Databases) -> Iterator[str]:
    """The URL of a fresh write DB, as its owner."""
    url = postgresql.with_schema()
    yield text_of(url)
    postgresql.drop(url)
