"""What the queries answer, and what they refuse."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from cqrs.database.engine import open_engine
from cqrs.errors import InvalidRequest, Rejected
from orderstream.customers.v1.queries_pb2 import GetCustomerRequest, GetCustomerResponse
from orderstream.orders.v1.order_pb2 import OrderStatus
from orderstream.orders.v1.queries_pb2 import (
    BatchGetOrdersRequest,
    BatchGetOrdersResponse,
    GetOrderRequest,
    ListOrdersRequest,
    ListOrdersResponse,
)
from orderstream.sales.v1.queries_pb2 import GetSalesDashboardRequest, GetSalesDashboardResponse
from query_server.page_tokens import Cursor
from query_server.queries.order_lists import OrderFilter, Page, page_statement
from query_server.queries.sales import MOST_MONTHS, TOP_CUSTOMERS
from readmodel import sales
from readmodel.orders import orders
from tests.integration.query_server.read_db import RECORD_TIME, ReadDb
from tests.integration.query_server.rig import Context, Rig, running, token

HOUR = 3_600_000_000


@pytest.fixture
def db(tmp_path: Path) -> Iterator[ReadDb]:
    db = ReadDb(tmp_path / "read.db")
    yield db
    db.close()


def run(db: ReadDb, scenario: Callable[[Rig], Awaitable[None]], **options: Any) -> None:
    async def inner() -> None:
        async with running(db, **options) as rig:
            await scenario(rig)

    asyncio.run(inner())


def anywhere() -> Any:
    return Context()


async def list_orders(rig: Rig, **fields: Any) -> ListOrdersResponse:
    return ListOrdersResponse.FromString(await rig.orders.list_orders(ListOrdersRequest(**fields), anywhere()))


async def dashboard(rig: Rig, **fields: Any) -> GetSalesDashboardResponse:
    request = GetSalesDashboardRequest(**fields)
    return GetSalesDashboardResponse.FromString(await rig.sales.get_sales_dashboard(request, anywhere()))


async def violations(call: Awaitable[Any]) -> list[str]:
    with pytest.raises(InvalidRequest) as caught:
        await call
    return [violation.field for violation in caught.value.violations]


def stamp(micros: int) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromMicroseconds(micros)
    return timestamp


class Made(NamedTuple):
    """An order that was made for a test."""

    create_time: int
    order_id: str
    status: int
    customer_id: str


def fill(db: ReadDb, count: int) -> list[Made]:
    """Orders in all statuses, of three customers, several of them at the same moment; newest first."""
    dice = random.Random(7)
    made = []
    statements: list[sa.Executable] = []
    for number in range(count):
        order_id, status, customer = f"o{number:03}", dice.randint(1, 7), f"c{dice.randint(1, 3)}"
        create_time = RECORD_TIME + dice.randint(0, 20) * HOUR
        statements += db.order_row(order_id, 1, status=status, customer_id=customer, create_time=create_time)
        made.append(Made(create_time, order_id, status, customer))
    db.advance("orders", 1, *statements)
    return sorted(made, reverse=True)


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, lambda _: True),
        ({"statuses": [1]}, lambda order: order.status == 1),
        ({"statuses": [3, 1, 3]}, lambda order: order.status in (1, 3)),
        ({"statuses": [1, 2, 3, 4, 5, 6, 7]}, lambda _: True),
        ({"customer_id": "c2"}, lambda order: order.customer_id == "c2"),
        (
            {"customer_id": "c2", "statuses": [2, 4]},
            lambda order: order.customer_id == "c2" and order.status in (2, 4),
        ),
        (
            {"create_time_from": stamp(RECORD_TIME + 5 * HOUR), "create_time_to": stamp(RECORD_TIME + 9 * HOUR)},
            lambda order: RECORD_TIME + 5 * HOUR <= order.create_time < RECORD_TIME + 9 * HOUR,
        ),
        (
            {"create_time_from": stamp(RECORD_TIME + 5 * HOUR), "statuses": [5, 6]},
            lambda order: order.create_time >= RECORD_TIME + 5 * HOUR and order.status in (5, 6),
        ),
        ({"customer_id": "nobody"}, lambda _: False),
    ],
)
@pytest.mark.parametrize("page_size", [1, 7, 500])
def test_pages_hold_each_matching_order_once_newest_first(
    db: ReadDb, fields: dict[str, Any], wanted: Callable[[Made], bool], page_size: int
) -> None:
    expected = [order.order_id for order in fill(db, 60) if wanted(order)]

    async def scenario(rig: Rig) -> None:
        seen: list[str] = []
        page_token = ""
        while True:
            page = await list_orders(rig, page_size=page_size, page_token=page_token, **fields)
            assert len(page.orders) <= page_size
            seen += [order.order_id for order in page.orders]
            page_token = page.next_page_token
            if not page_token:
                break
        assert seen == expected

    run(db, scenario)


def test_the_default_page_has_fifty_orders(db: ReadDb) -> None:
    fill(db, 60)

    async def scenario(rig: Rig) -> None:
        page = await list_orders(rig)
        assert len(page.orders) == 50
        assert page.orders[0].customer_name == "Ada"
        assert page.freshness.as_of_position == 1
        assert page.consistency_token == token(1)

    run(db, scenario)


def test_a_page_of_large_orders_ends_early_and_the_next_goes_on(db: ReadDb) -> None:
    statements: list[sa.Executable] = []
    for number in range(30):
        statements += db.order_row(f"o{number:02}", 1, create_time=RECORD_TIME + number, cancel_reason="x" * 100_000)
    db.advance("orders", 1, *statements)

    async def scenario(rig: Rig) -> None:
        first = await list_orders(rig)
        assert 5 < len(first.orders) < 15
        second = await list_orders(rig, page_token=first.next_page_token)
        assert second.orders[0].order_id == f"o{29 - len(first.orders):02}"
        request = BatchGetOrdersRequest(order_ids=[f"o{number:02}" for number in range(30)])
        assert await violations(rig.orders.batch_get_orders(request, anywhere())) == ["order_ids"]

    run(db, scenario)


def test_page_tokens_of_other_queries_and_garbage_are_refused(db: ReadDb) -> None:
    fill(db, 60)

    async def scenario(rig: Rig) -> None:
        first = await list_orders(rig, statuses=[1, 2], page_size=2)
        assert len((await list_orders(rig, statuses=[2, 1, 1], page_token=first.next_page_token)).orders) > 2
        for fields in (
            {"page_token": first.next_page_token},
            {"page_token": first.next_page_token, "statuses": [1]},
            {"page_token": first.next_page_token, "statuses": [1, 2], "customer_id": "c1"},
            {"page_token": "garbage"},
            {"page_token": "AAAA" * 1000},
            {"page_token": token(1)},
        ):
            assert await violations(list_orders(rig, **fields)) == ["page_token"]

    run(db, scenario)


def test_every_violation_of_a_list_request_is_named(db: ReadDb) -> None:
    async def scenario(rig: Rig) -> None:
        assert await violations(
            list_orders(
                rig,
                statuses=[0, 1, 99],
                customer_id="x" * 65,
                create_time_from=Timestamp(nanos=-1),
                create_time_to=Timestamp(seconds=2**40),
                page_size=501,
                page_token="?",
                consistency_token="?",
                max_wait=Duration(seconds=31),
            )
        ) == [
            "statuses[0]",
            "statuses[2]",
            "customer_id",
            "create_time_from",
            "create_time_to",
            "page_size",
            "page_token",
            "consistency_token",
            "max_wait",
        ]
        assert await violations(list_orders(rig, page_size=-1, statuses=[1] * 8)) == ["statuses", "page_size"]
        assert await violations(
            list_orders(rig, create_time_from=Timestamp(seconds=5), create_time_to=Timestamp(seconds=4))
        ) == ["create_time_to"]

    run(db, scenario)


def plan_of(db: ReadDb, statement: sa.Select[Any]) -> list[str]:
    engine = open_engine(db.url, access="read")
    text = statement.compile(engine, compile_kwargs={"literal_binds": True})
    with engine.connect() as connection:
        plan = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}")]
    engine.dispose()
    return plan


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        (OrderFilter((), "", None, None), "orders_by_time"),
        (OrderFilter((), "c1", None, None), "orders_by_customer"),
        (OrderFilter((2,), "c1", 5, 9), "orders_by_customer"),
        (OrderFilter((2,), "", None, 9), "orders_by_status"),
        (OrderFilter((2, 3), "", 5, None), "orders_by_status"),
    ],
)
@pytest.mark.parametrize("after", [None, Cursor(7, "o7")])
def test_each_page_walks_one_index_and_sorts_no_orders(
    db: ReadDb, wanted: OrderFilter, index: str, after: Cursor | None
) -> None:
    statement = page_statement((orders.c.order_id, orders.c.create_time), 1, Page(wanted, after, 10))
    plan = plan_of(db, statement)
    searches = [step for step in plan if step.startswith(("SEARCH orders", "SCAN orders"))]
    assert searches
    assert all(step.startswith("SEARCH") and index in step for step in searches)
    if len(wanted.statuses) <= 1:
        assert not [step for step in plan if "TEMP B-TREE" in step]
    if after is not None:  # else the page would walk past all those before it
        assert all("(create_time,order_id)<(?,?)" in step for step in searches)


def test_a_batch_is_in_the_order_of_its_ids_each_once_with_the_missing_named(db: ReadDb) -> None:
    for number in range(3):
        db.order(f"o{number}", number + 1)

    async def scenario(rig: Rig) -> None:
        request = BatchGetOrdersRequest(order_ids=["o2", "x", "o0", "o2", "y", "x"])
        answer = BatchGetOrdersResponse.FromString(await rig.orders.batch_get_orders(request, anywhere()))
        assert [order.order_id for order in answer.orders] == ["o2", "o0"]
        assert list(answer.missing_order_ids) == ["x", "y"]
        assert answer.freshness.as_of_position == 3
        assert answer.consistency_token == token(3)
        full = BatchGetOrdersRequest(order_ids=[f"o{number}" for number in range(1000)])
        answer = BatchGetOrdersResponse.FromString(await rig.orders.batch_get_orders(full, anywhere()))
        assert (len(answer.orders), len(answer.missing_order_ids)) == (3, 997)

    run(db, scenario)


def test_every_violation_of_a_batch_is_named(db: ReadDb) -> None:
    async def scenario(rig: Rig) -> None:
        async def batch(ids: list[str]) -> list[str]:
            return await violations(rig.orders.batch_get_orders(BatchGetOrdersRequest(order_ids=ids), anywhere()))

        assert await batch([]) == ["order_ids"]
        assert await batch(["a"] * 1001) == ["order_ids"]
        assert await batch(["a", "", "b" * 65, "c\n"]) == ["order_ids[1]", "order_ids[2]", "order_ids[3]"]
        many = ["x" * 65] * 1000
        assert len(await batch(many)) == 1000

    run(db, scenario)


def test_every_violation_of_a_get_is_named_even_when_the_order_is_cached(db: ReadDb) -> None:
    db.order("o1", 1)

    async def scenario(rig: Rig) -> None:
        await rig.orders.get_order(GetOrderRequest(order_id="o1"), anywhere())
        bad_wait = GetOrderRequest(order_id="o1", max_wait=Duration(seconds=-1))
        assert await violations(rig.orders.get_order(bad_wait, anywhere())) == ["max_wait"]
        bad = GetOrderRequest(order_id="", consistency_token="nonsense", max_wait=Duration(seconds=31))
        assert await violations(rig.orders.get_order(bad, anywhere())) == ["order_id", "consistency_token", "max_wait"]

    run(db, scenario)


def test_a_customer_is_cached_and_invalidated_by_its_own_key(db: ReadDb) -> None:
    db.customer("c1", 1, name="Ada")

    async def scenario(rig: Rig) -> None:
        async def name() -> str:
            request = GetCustomerRequest(customer_id="c1")
            answer = GetCustomerResponse.FromString(await rig.customers.get_customer(request, anywhere()))
            assert answer.customer.email == "c1@example.org"
            return answer.customer.name

        assert [await name(), await name()] == ["Ada", "Ada"]
        assert rig.database.rows_read == 1
        rig.notify(db.customer("c1", 2, name="Grace", version=2))
        assert await name() == "Grace"
        with pytest.raises(Rejected) as caught:
            await rig.customers.get_customer(GetCustomerRequest(customer_id="c9"), anywhere())
        assert caught.value.reason == "CUSTOMER_NOT_FOUND"
        assert await violations(rig.customers.get_customer(GetCustomerRequest(), anywhere())) == ["customer_id"]

    run(db, scenario)


def sold(table: sa.Table, **values: Any) -> sa.Executable:
    return table.insert().values(generation=1, **{"orders": 1, "units": 10, "nanos": 500_000_000, **values})


def some_sales(db: ReadDb) -> None:
    rows = [
        sold(sales.sales_by_currency, currency="USD", orders=3, units=30, customers=2),
        sold(sales.sales_by_currency, currency="EUR", customers=1),
        sold(sales.sales_by_currency, currency="GBP", orders=0, units=0, nanos=0, customers=0),
        sold(sales.sales_by_status, status=OrderStatus.ORDER_STATUS_PAID, currency="USD", orders=3),
        sold(sales.sales_by_status, status=OrderStatus.ORDER_STATUS_CANCELLED, currency="USD"),
        sold(sales.sales_by_status, status=OrderStatus.ORDER_STATUS_CREATED, currency="EUR"),
        sold(sales.sales_by_month, month="1998-06", currency="USD"),
        sold(sales.sales_by_month, month="1997-01", currency="USD"),
        sold(sales.sales_by_month, month="1997-01", currency="EUR"),
        sales.sales_summary.insert().values(generation=1, customer_count=9, order_count=5),
    ]
    rows += [sold(sales.sales_by_day, day=day, currency="USD") for day in ("1997-01-01", "1998-05-30", "1998-05-31")]
    rows += [
        sold(sales.sales_by_day, day="1998-06-30", currency="USD"),
        sold(sales.sales_by_day, day="1997-01-02", currency="EUR"),
    ]
    for number in range(12):
        rows += [
            sold(
                sales.sales_by_customer,
                currency="USD",
                customer_id=f"c{number:02}",
                units=number // 2,
                nanos=number % 2,
            ),
            sales.sales_customers.insert().values(generation=1, customer_id=f"c{number:02}", name=f"Customer {number}"),
        ]
    rows.append(sold(sales.sales_by_customer, currency="EUR", customer_id="unregistered"))
    db.sales(1, *rows)


def test_the_dashboard_shows_the_summed_up_rows_in_order(db: ReadDb) -> None:
    some_sales(db)

    async def scenario(rig: Rig) -> None:
        answer = await dashboard(rig)
        assert [(row.revenue.currency_code, row.orders, row.customers) for row in answer.currencies] == [
            ("EUR", 1, 1),
            ("USD", 3, 2),
        ]
        assert (answer.currencies[1].revenue.units, answer.currencies[1].revenue.nanos) == (30, 500_000_000)
        assert [(row.status, row.value.currency_code) for row in answer.statuses] == [
            (1, "EUR"),
            (3, "USD"),
            (7, "USD"),
        ]
        assert [(row.period, row.revenue.currency_code) for row in answer.months] == [
            ("1997-01", "EUR"),
            ("1997-01", "USD"),
            ("1998-06", "USD"),
        ]
        assert [row.period for row in answer.days] == ["1998-05-31", "1998-06-30"]
        assert [row.customer_id for row in answer.top_customers] == [
            "unregistered",
            *(f"c{number:02}" for number in range(11, 1, -1)),
        ]
        assert answer.top_customers[1].customer_name == "Customer 11"
        assert (answer.customer_count, answer.order_count) == (9, 5)
        assert answer.freshness.as_of_position == 1

    run(db, scenario)


def test_the_top_customers_are_read_from_the_end_of_an_index_even_if_all_are_equal(db: ReadDb) -> None:
    plan = plan_of(db, TOP_CUSTOMERS.limit(10).params(generation=1, currency="USD"))
    assert "sales_by_customer_revenue" in plan[0]
    assert not [step for step in plan if "TEMP B-TREE" in step]


def test_the_dashboard_shows_the_newest_months_that_have_orders(db: ReadDb) -> None:
    months = [f"{1900 + 2 * number}-01" for number in range(MOST_MONTHS + 3)]
    db.sales(
        1, *(sold(sales.sales_by_month, month=month, currency=code) for month in months for code in ("EUR", "USD"))
    )

    async def scenario(rig: Rig) -> None:
        expected = months[-MOST_MONTHS:]
        assert [row.period for row in (await dashboard(rig)).months] == [each for each in expected for _ in range(2)]
        assert [row.period for row in (await dashboard(rig, currency_code="EUR")).months] == expected

    run(db, scenario)


def test_the_dashboard_can_be_narrowed(db: ReadDb) -> None:
    some_sales(db)

    async def scenario(rig: Rig) -> None:
        euros = await dashboard(rig, currency_code="EUR", top_customers=0)
        assert [row.revenue.currency_code for row in euros.currencies] == ["EUR"]
        assert [row.period for row in euros.days] == ["1997-01-02"]
        assert (len(euros.top_customers), euros.order_count) == (0, 1)
        assert [row.period for row in (await dashboard(rig, day_from="1998-05-30")).days] == [
            "1998-05-30",
            "1998-05-31",
            "1998-06-30",
        ]
        assert [row.period for row in (await dashboard(rig, day_to="1997-01-03")).days] == ["1997-01-01", "1997-01-02"]
        assert [row.period for row in (await dashboard(rig, day_from="1997-01-02", day_to="1998-05-31")).days] == [
            "1998-05-30"
        ]
        assert not (await dashboard(rig, day_from="1998-01-01", day_to="1998-01-01")).days
        assert not (await dashboard(rig, day_to="0001-01-01")).days
        assert not (await dashboard(rig, currency_code="XXX")).currencies

    run(db, scenario)


def test_an_empty_dashboard_is_an_answer(db: ReadDb) -> None:
    async def scenario(rig: Rig) -> None:
        answer = await dashboard(rig)
        assert (answer.order_count, answer.freshness.as_of_position) == (0, 0)
        assert not answer.freshness.HasField("as_of_time")

    run(db, scenario)


def test_the_dashboard_is_cached_for_each_request_and_dropped_by_any_change(db: ReadDb) -> None:
    some_sales(db)

    async def scenario(rig: Rig) -> None:
        for _ in range(2):
            await dashboard(rig)
            await dashboard(rig, currency_code="USD")
        assert rig.database.rows_read == 2
        rig.notify(db.sales(2, sa.update(sales.sales_summary).values(customer_count=10)))
        assert (await dashboard(rig)).customer_count == 10
        assert (await dashboard(rig, currency_code="USD")).customer_count == 10
        assert rig.views["sales"].cache.counters.invalidations == 2

    run(db, scenario)


def test_a_dashboard_that_read_before_a_change_is_not_kept(db: ReadDb) -> None:
    some_sales(db)

    async def scenario(rig: Rig) -> None:
        rig.database.open.clear()
        reader = asyncio.create_task(dashboard(rig))
        await rig.database.reading()
        rig.notify(db.sales(2, sa.update(sales.sales_summary).values(customer_count=10)))
        rig.database.open.set()
        assert (await reader).customer_count == 9
        assert (await dashboard(rig)).customer_count == 10

    run(db, scenario)


def test_every_violation_of_a_dashboard_request_is_named(db: ReadDb) -> None:
    async def scenario(rig: Rig) -> None:
        assert await violations(
            dashboard(rig, currency_code="usd", day_from="1997-13-01", day_to="yesterday", top_customers=101)
        ) == ["currency_code", "day_from", "day_to", "top_customers"]
        assert await violations(dashboard(rig, day_from="1998-01-02", day_to="1998-01-01")) == ["day_to"]
        assert await violations(dashboard(rig, day_from="19970101")) == ["day_from"]

    run(db, scenario)


def test_rows_of_another_generation_are_never_shown(db: ReadDb) -> None:
    db.order("o1", 1)
    db.generation = 2
    db.order("o2", 1)
    db.generation = 1

    async def scenario(rig: Rig) -> None:
        assert [order.order_id for order in (await list_orders(rig)).orders] == ["o1"]
        with pytest.raises(Rejected):
            await rig.orders.get_order(GetOrderRequest(order_id="o2"), anywhere())

    run(db, scenario)
