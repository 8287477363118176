"""What an operator's command works on: databases and a broker, by URL or as those of a data directory."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from cli.failures import InUse, NotUsable
from cli.supervisor.data_directory import DataDirectory
from cqrs.broker.embedded import EmbeddedBroker
from cqrs.database.engine import backend_of, database_file

_MISSING = "name the data directory with --data DIR; `orderstream up` makes and fills what is missing"


class BrokerTarget(NamedTuple):
    """Where the broker is, or how to start it."""

    url: str
    """Where it runs; empty: it does not, and `broker` is to be started for as long as it is needed."""
    broker: EmbeddedBroker | None

    @property
    def running(self) -> bool:
        """Whether the system runs, as far as can be told: with its broker there may be servers."""
        return self.broker is None


def existing_write_db(data: Path, url: str) -> str:
    """The write DB's URL.

    Raises:
        NotUsable: there is no such file.
    """
    return _existing(url or DataDirectory(data).write_db_url)


def existing_read_db(data: Path, url: str) -> str:
    """The read DB's URL.

    Raises:
        NotUsable: there is no such file.
    """
    return _existing(read_db(data, url))


def read_db(data: Path, url: str) -> str:
    """The read DB's URL, whether or not there is one."""
    return url or DataDirectory(data).read_db_url


def sqlite_file(url: str) -> Path | None:
    """The file behind an SQLite URL; None for another database.

    Raises:
        ConfigurationError: it is no URL of a database.
    """
    return database_file(url) if backend_of(url).is_file else None


def find_broker(stack: ExitStack, data: Path, nats_url: str) -> BrokerTarget:
    """The broker at `nats_url`, or that of a data directory, which is kept from starting while `stack` is open.

    Raises:
        NotUsable: there is no such directory, or its broker is not up yet.
    """
    if nats_url:
        return BrokerTarget(nats_url, None)
    directory = DataDirectory(data)
    if not directory.lock_file.exists():
        raise NotUsable(
            f"{directory.path} is no data directory of `orderstream up`",
            hint="say where the broker is with --nats-url URL",
        )
    try:
        stack.enter_context(directory.lock())
    except InUse:
        return BrokerTarget(directory.read_broker_url(), None)
    return BrokerTarget("", EmbeddedBroker(directory.jetstream))


def _existing(url: str) -> str:
    file = sqlite_file(url)
    if file is not None and not file.exists():
        raise NotUsable(f"{file} does not exist", hint=_MISSING)
    return url
