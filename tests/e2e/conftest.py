"""What end-to-end tests have from the integration tests: a PostgreSQL, and the role of its command servers."""

from tests.integration.cli.test_db_grant import role
from tests.integration.conftest import postgresql, postgresql_write_db

__all__ = ["postgresql", "postgresql_write_db", "role"]
