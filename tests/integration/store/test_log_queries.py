"""What readers of the log can ask, in memory and of the databases: the answers are those of a walk along all events."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from cqrs.ids import new_id
from cqrs.records import EventRecord
from cqrs.store.memory import MemoryEventStore
from cqrs.store.port import ENVELOPE_BYTES
from cqrs.store.queries import EVERYTHING, SCAN_POSITIONS, LogFilter, LogQueries
from cqrs.store.sql import SqlEventStore
from tests.integration.events.writing import START, Draft, LogWriter, result_at
from tests.integration.logs import new_write_db


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def writer(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LogWriter]:
    if request.param == "memory":
        yield LogWriter(MemoryEventStore())
        return
    url = new_write_db(tmp_path) if request.param == "sqlite" else request.getfixturevalue("postgresql_write_db")
    store = SqlEventStore(url)
    yield LogWriter(store)
    store.close()


@pytest.fixture
def log(writer: LogWriter) -> LogQueries:
    store = writer.store
    assert isinstance(store, MemoryEventStore | SqlEventStore)
    return store


def mixed(seed: int, count: int) -> list[Draft]:
    rng = random.Random(seed)
    time, drafts = START, []
    for _ in range(count):
        time += rng.choice([0, 0, 0, 1, 5])
        kind = rng.choice(["order", "customer"])
        drafts.append(Draft(f"{kind}-{rng.randrange(8)}", kind, f"example.v1.{rng.choice('ABC')}", time))
    return drafts


def walk(log: LogQueries, chosen: LogFilter, limit: int, max_bytes: int = 1 << 20, start: int = 1) -> list[EventRecord]:
    """All pages, joined."""
    found: list[EventRecord] = []
    position = start
    while True:
        page = log.read_page(position, limit, max_bytes, chosen)
        assert len(page.events) <= limit
        assert all(position <= event.position < page.next_position for event in page.events)
        found += page.events
        if page.next_position > page.head.position:
            return found
        assert page.next_position > position
        position = page.next_position


@pytest.mark.parametrize(
    "chosen",
    [
        EVERYTHING,
        LogFilter(frozenset(["order"])),
        LogFilter(event_types=frozenset(["example.v1.A", "example.v1.C"])),
        LogFilter(aggregate_ids=frozenset(["order-1", "customer-2", "nobody"])),
        LogFilter(frozenset(["order"]), frozenset(["example.v1.B"]), frozenset(["order-1", "customer-2"])),
        LogFilter(frozenset(["order"]), aggregate_ids=frozenset(["customer-2"])),
    ],
    ids=["everything", "aggregate type", "event type", "aggregate", "all three", "nothing"],
)
def test_pages_together_are_exactly_the_chosen_events_in_order(
    writer: LogWriter, log: LogQueries, chosen: LogFilter
) -> None:
    written = writer.write(*mixed(1, 300))
    expected = [event for event in written if chosen.chooses(event)]
    assert walk(log, chosen, 7) == expected
    assert walk(log, chosen, 1_000, max_bytes=3 * (1 + ENVELOPE_BYTES)) == expected
    assert walk(log, chosen, 50, start=150) == [event for event in expected if event.position >= 150]
    assert log.read_page(301, 10, 1 << 20, chosen).events == []


def test_a_page_that_finds_nothing_looks_at_a_bounded_part_of_the_log(writer: LogWriter, log: LogQueries) -> None:
    writer.write_many(SCAN_POSITIONS + 5)
    page = log.read_page(1, 10, 1 << 20, LogFilter(frozenset(["nothing"])))
    assert (page.events, page.next_position) == ([], SCAN_POSITIONS + 1)
    many = LogFilter(aggregate_ids=frozenset(f"a-{number}" for number in range(10)))
    assert [event.position for event in log.read_page(4, 3, 1 << 20, many).events] == [4, 5, 6]
    assert log.read_page(3, 2, 1 << 20).next_position == 5


def test_a_time_is_found_as_the_first_event_at_or_after_it_also_among_equal_times(
    writer: LogWriter, log: LogQueries
) -> None:
    written = writer.write(*mixed(2, 200))
    for time in range(START - 1, written[-1].record_time + 2):
        expected = next((event.position for event in written if event.record_time >= time), 201)
        assert log.position_at(time) == expected
        own = [event for event in written if event.aggregate_id == "order-1"]
        assert log.version_at("order-1", time) == next(
            (event.version for event in own if event.record_time >= time), len(own) + 1
        )
    assert log.version_at("nobody", START) == 1


def test_an_empty_log_has_no_first_event_of_any_time(log: LogQueries) -> None:
    assert log.position_at(START) == 1
    assert log.read_page(1, 10, 100).next_position == 1


def test_an_aggregate_is_read_backwards_from_any_version(writer: LogWriter, log: LogQueries) -> None:
    written = writer.write(*[Draft("a")] * 9, Draft("b"))
    own = written[:9][::-1]
    assert log.read_aggregate_backwards("a", 2**63 - 1, 100, 1 << 20) == own
    assert log.read_aggregate_backwards("a", 5, 3, 1 << 20) == own[4:7]
    assert log.read_aggregate_backwards("a", 5, 3, 1) == own[4:5]
    assert log.read_aggregate_backwards("nobody", 5, 3, 1 << 20) == []


def test_correlated_and_caused_events_are_found_within_bounds_that_say_whether_there_are_more(
    writer: LogWriter, log: LogQueries
) -> None:
    written = writer.write(
        Draft("a", correlation_id="p", causation_id="x"),
        Draft("b"),
        Draft("a", correlation_id="p", causation_id="y"),
        Draft("b", correlation_id="q", causation_id="x"),
        Draft("b", causation_id="x"),
    )
    assert log.find_correlated("p", 5, 1 << 20) == ([written[0], written[2]], False)
    assert log.find_correlated("p", 1, 1 << 20) == ([written[0]], True)
    assert log.find_correlated("p", 5, ENVELOPE_BYTES + 1) == ([written[0]], True)
    assert log.find_correlated("nothing", 5, 1 << 20) == ([], False)
    assert log.find_caused(["x", "y", "z"], 9, 1 << 20) == ([written[0], written[3], written[4], written[2]], False)
    assert log.find_caused(["y", "x"], 3, 1 << 20) == ([written[0], written[3], written[4]], True)
    assert log.find_caused(["y", "x"], 0, 1 << 20) == ([], True)
    assert log.find_caused(["x", "y"], 9, 1 << 20, "p") == ([written[3], written[4]], False)
    assert log.find_caused([], 9, 1 << 20) == ([], False)


def test_an_event_and_the_last_event_of_a_command_are_found_in_a_range(writer: LogWriter, log: LogQueries) -> None:
    id_ = new_id()
    written = writer.write(
        Draft(request_id="r"),
        Draft(request_id="r", event_id=id_),
        Draft(request_id="s"),
        results=[result_at("r", START + 7)],
    )
    assert log.find_event(id_, 1, 3) == written[1]
    assert log.find_event(id_, 3, 3) is None
    assert log.find_request("r", 1, 3) == written[1]
    assert log.find_request("r", 1, 1) == written[0]
    assert log.find_request("r", 3, 3) is None
    assert (log.result_time("r"), log.result_time("s")) == (START + 7, None)


def test_the_figures_count_what_there_is(writer: LogWriter, log: LogQueries) -> None:
    writer.write(Draft(), results=[result_at("r", START), result_at("s", START)])
    figures = log.read_figures()
    assert (figures.snapshots, figures.command_results) == (0, 2)
    assert figures.database_bytes > 0 or isinstance(log, MemoryEventStore)
    assert [epoch.fork_position for epoch in log.read_epochs()] == [0]


@pytest.mark.parametrize("writer", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "ask",
    [
        lambda log: log.find_correlated("p", 10, 1 << 20),
        lambda log: log.find_caused(["x", "y"], 10, 1 << 20, "p"),
        lambda log: log.read_page(5, 10, 1 << 20),
        lambda log: log.read_page(5, 10, 1 << 20, LogFilter(frozenset(["order"]))),
        lambda log: log.find_event("e", 5, 90),
    ],
)
def test_no_question_walks_along_the_whole_log_or_sorts_it(
    writer: LogWriter, ask: Callable[[LogQueries], object]
) -> None:
    store = writer.store
    assert isinstance(store, SqlEventStore)
    writer.write_many(100)
    statements: list[tuple[str, object]] = []

    def note(_connection: object, _cursor: object, statement: str, parameters: object, *_: object) -> None:
        statements.append((statement, parameters))

    sa.event.listen(store._read_engine, "before_cursor_execute", note)
    ask(store)
    sa.event.remove(store._read_engine, "before_cursor_execute", note)
    with store._read_engine.connect() as connection:
        for statement, parameters in statements:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()  # type: ignore[arg-type]
            assert not [step for step in plan if "SCAN events" in step[3] or "TEMP B-TREE" in step[3]], plan
