"""How long it takes to load one order by the number of its events, from a snapshot and without one.

    python -m bench.loading URL [EVENTS ...]

URL is a write DB with its schema, which is filled. It is the loading of the command server, without the server: what
the first command on an order costs that is not in memory.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from itertools import islice
from statistics import median
from typing import NamedTuple

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from prometheus_client import CollectorRegistry

from command_server.aggregates import AGGREGATE_TYPES, ORDER
from cqrs.commit.aggregates import LoadedAggregate
from cqrs.database.engine import backend_of, open_engine
from cqrs.ids import new_id
from cqrs.records import EventRecord, LogHead, chain_hash
from cqrs.snapshots.loader import AggregateLoader
from cqrs.snapshots.metrics import SnapshotMetrics
from cqrs.snapshots.rules import SnapshotRule, Snapshots, rules_for
from cqrs.snapshots.snapshot import Capture, seal
from cqrs.store.sql import SqlEventStore
from domain.money import NANOS_PER_UNIT, money_of
from orderstream.orders.v1.events_pb2 import OrderCreated, OrderItemAdded
from orderstream.orders.v1.order_pb2 import Order, OrderItem

SNAPSHOT_EVERY = 100
"""Events, as the command server has it unless it is told otherwise."""

TAIL = SNAPSHOT_EVERY // 2
"""Events behind the snapshot, on average."""

_BATCH = 1000
_PRICE = money_of("USD", 12 * NANOS_PER_UNIT)


class LoadTimes(NamedTuple):
    """Medians, in seconds, of loading one order."""

    without_snapshots: float
    with_snapshots: float


def measure_loading(url: str, events: int, rounds: int = 5) -> LoadTimes:
    """Load an order of so many events, both ways by turns.

    Args:
        url: a write DB with its schema; the order is added to it.
        events: how many events the order gets, 1 or more. It has a snapshot if a server would have taken one.
        rounds: how often to load it each way.
    """
    with closing(SqlEventStore(url)) as store:
        order_id = new_id()
        _fill(store, order_id, events)
        rules = rules_for([ORDER], {ORDER.name: SNAPSHOT_EVERY})
        fold, resume = _loader({}), _loader(rules)
        if events > SNAPSHOT_EVERY:
            _take_snapshot(store, order_id, events - TAIL, rules[ORDER.name])
        _analyze(url)
        times = [
            (_seconds(fold, store, order_id, events), _seconds(resume, store, order_id, events)) for _ in range(rounds)
        ]
        return LoadTimes(*(median(each) for each in zip(*times, strict=True)))


def _seconds(loader: AggregateLoader, store: SqlEventStore, order_id: str, events: int) -> float:
    begin = time.perf_counter()
    state = loader.load(store, [order_id])[order_id]
    seconds = time.perf_counter() - begin
    if not isinstance(state, LoadedAggregate) or not isinstance(state.state, Order) or state.version != events:
        raise RuntimeError(f"an order of {events} events was loaded as {state}")
    return seconds


def _analyze(url: str) -> None:
    """What PostgreSQL's autovacuum does by itself, if later."""
    if backend_of(url).is_file:
        return
    engine = open_engine(url, access="write")
    with engine.begin() as connection:
        connection.exec_driver_sql("ANALYZE")
    engine.dispose()


def _loader(rules: Mapping[str, SnapshotRule]) -> AggregateLoader:
    metrics = SnapshotMetrics(CollectorRegistry())
    return AggregateLoader(Snapshots(AGGREGATE_TYPES, rules, metrics), metrics)


def _fill(store: SqlEventStore, order_id: str, events: int) -> None:
    """Append an order of one line, whose quantity is its version."""
    messages = _messages(order_id, events)
    version = 0
    while part := list(islice(messages, _BATCH)):
        with store.begin_append() as transaction:
            head, records = transaction.head, list[EventRecord]()
            for message in part:
                version += 1
                record = _record(head, order_id, version, message)
                head = LogHead(record.position, record.hash, head.epoch, record.record_time)
                records.append(record)
            transaction.append(records, [], head)
            transaction.commit()


def _messages(order_id: str, events: int) -> Iterator[Message]:
    item = OrderItem(sku="sku-1", name="Article number 1", quantity=1, unit_price=_PRICE)
    now = Timestamp(seconds=1_700_000_000)
    yield OrderCreated(order_id=order_id, customer_id="bench-customer", items=[item], total=_PRICE, occur_time=now)
    for quantity in range(2, events + 1):
        total = money_of("USD", 12 * NANOS_PER_UNIT * quantity)
        yield OrderItemAdded(order_id=order_id, item=item, total=total, occur_time=now)


def _record(head: LogHead, order_id: str, version: int, message: Message) -> EventRecord:
    record = EventRecord(
        position=head.position + 1,
        event_id=new_id(),
        aggregate_type=ORDER.name,
        aggregate_id=order_id,
        version=version,
        event_type=message.DESCRIPTOR.full_name,
        record_time=max(head.record_time, time.time_ns() // 1000),
        request_id=None,
        correlation_id=None,
        causation_id=None,
        actor=None,
        traceparent=None,
        data=message.SerializeToString(deterministic=True),
        hash=b"",
    )
    return record._replace(hash=chain_hash(head.hash, record))


def _take_snapshot(store: SqlEventStore, order_id: str, version: int, rule: SnapshotRule) -> None:
    state = ORDER.state()
    for record in store.read_aggregate(order_id, 1, version):
        ORDER.evolve(state, ORDER.events[record.event_type].FromString(record.data))
    capture = Capture(order_id, version, record.position, record.hash, ORDER.name, record.record_time, state)
    store.write_snapshots([seal(capture, rule.fingerprint)], keep=1)


def main() -> int:
    """Run from the command line."""
    url, *counts = sys.argv[1:]
    for events in map(int, counts or ("10", "1000", "100000")):
        times = measure_loading(url, events)
        print(
            f"{events:>8,} events: {1000 * times.without_snapshots:10.2f} ms without, "
            f"{1000 * times.with_snapshots:8.2f} ms with snapshots"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
