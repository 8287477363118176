"""Which of several command servers publishes: saves wasted batches. The broker's fence keeps the stream right.

See docs/adr/0013-many-servers-on-one-postgresql-log.md.
"""

from __future__ import annotations

import time
from typing import Protocol

from cqrs.relay.threads import RelayThreads
from cqrs.serving.logging import get_logger
from cqrs.store.leases import SqlLeases
from cqrs.store.port import StoreError

LEASE_SECONDS = 3.0
"""After so long without a renewal another relay takes over: three times the interval of renewals (RelayTimes.renew)."""

_NAME = "relay"

_log = get_logger(__name__)


class RelayLease(Protocol):
    """The right to publish. Its methods block: call them on a thread."""

    @property
    def is_shared(self) -> bool:
        """Whether other processes may want it too."""
        ...

    def hold(self) -> bool:
        """Take it or renew it; whether this process has it.

        Raises:
            StoreError: the write DB cannot be asked.
        """
        ...

    def release(self) -> None:
        """Give it back.

        Raises:
            StoreError: the write DB cannot be asked; it runs out by itself.
        """
        ...


class SoleRelay:
    """Of a log that one process owns, as on SQLite."""

    is_shared = False

    def hold(self) -> bool:
        """See RelayLease."""
        return True

    def release(self) -> None:
        """See RelayLease."""


class LeasedRelay:
    """Of a log that several processes append to: a row of the write DB says which of them publishes."""

    is_shared = True

    def __init__(self, leases: SqlLeases) -> None:
        self._leases = leases

    def hold(self) -> bool:
        """See RelayLease."""
        return self._leases.hold(_NAME, LEASE_SECONDS)

    def release(self) -> None:
        """See RelayLease."""
        self._leases.release(_NAME)


class LeaseKeeper:
    """Holds a lease for a relay, as long as it asks now and then."""

    def __init__(self, lease: RelayLease, threads: RelayThreads, renew_seconds: float) -> None:
        """Renew the lease, or ask whether it can be had, every `renew_seconds`."""
        self._lease = lease
        self._threads = threads
        self._renew_seconds = renew_seconds
        self._holds = not lease.is_shared
        self._ask_at = 0.0

    async def hold(self) -> bool:
        """Whether this process may publish.

        Raises:
            StoreError: the write DB cannot be asked.
        """
        if self._lease.is_shared and time.monotonic() >= self._ask_at:
            self._holds = False
            self._holds = await self._threads.run(self._lease.hold)
            self._ask_at = time.monotonic() + self._renew_seconds
        return self._holds

    async def give_back(self) -> None:
        """So that another relay need not wait until it has run out."""
        if not (self._lease.is_shared and self._holds):
            return
        self._holds = False
        self._ask_at = 0.0
        try:
            await self._threads.run(self._lease.release)
        except StoreError as error:
            _log.warning("the relay's lease was not given back; it runs out by itself", error=str(error))
