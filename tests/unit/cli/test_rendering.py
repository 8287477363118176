"""What people see."""

from __future__ import annotations

import io

from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from rich.console import Console, RenderableType

from cli.amounts import money
from cli.rendering.common import duration_text, freshness_banner
from cli.rendering.dashboard import bar, dashboard
from cli.rendering.events import event_json, event_line
from cli.rendering.trees import causation_tree, node_json
from orderstream.events.v1.event_pb2 import EventMetadata, RecordedEvent
from orderstream.events.v1.event_service_pb2 import CausationNode, GetCausationTreeResponse
from orderstream.orders.v1.events_pb2 import OrderStatusChanged
from orderstream.orders.v1.order_pb2 import OrderStatus
from orderstream.sales.v1.queries_pb2 import CurrencySales, GetSalesDashboardResponse, PeriodSales
from orderstream.types.v1.freshness_pb2 import Freshness, FreshnessState


def text_of(renderable: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(renderable)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_a_current_answer_has_no_warning() -> None:
    banner = freshness_banner(Freshness(as_of_position=1234, state=FreshnessState.FRESHNESS_STATE_CURRENT))
    assert banner.plain == "current: as of log position 1,234"


def test_an_answer_that_is_behind_says_stale_how_much_and_for_how_long() -> None:
    banner = freshness_banner(
        Freshness(
            as_of_position=10,
            log_position=15,
            state=FreshnessState.FRESHNESS_STATE_BEHIND,
            stale_for=Duration(seconds=200),
        )
    )
    assert "STALE" in banner.plain
    assert "5 events are not shown yet; behind for 3 min 20 s" in banner.plain


def test_an_answer_says_stale_when_nothing_has_been_heard_from_the_log() -> None:
    unknown = Freshness(as_of_position=10, state=FreshnessState.FRESHNESS_STATE_UNKNOWN, stale_for=Duration(seconds=7))
    assert "STALE  nothing has been heard from the event log for 7.0 s" in freshness_banner(unknown).plain
    assert "STALE" in freshness_banner(Freshness()).plain


def test_time_spans_are_shown_in_the_unit_that_people_would_choose() -> None:
    assert [duration_text(seconds) for seconds in (0.04, 9.9, 12.4, 200, 7500)] == [
        "0.0 s",
        "9.9 s",
        "12 s",
        "3 min 20 s",
        "2 h 5 min",
    ]


def test_bars_are_exact_to_an_eighth_of_a_cell_and_what_is_not_nothing_shows() -> None:
    assert bar(1.0, 4) == "████"
    assert bar(0.5, 4) == "██"
    assert bar(0.28125, 4) == "█▏"
    assert bar(1e-9, 4) == "▏"
    assert bar(0.0, 4) == ""


def test_the_dashboard_shows_exact_totals_and_leaves_out_empty_sections() -> None:
    shown = text_of(
        dashboard(
            GetSalesDashboardResponse(
                currencies=[CurrencySales(orders=6919, revenue=money("244091.94", "USD"), customers=2357)],
                months=[PeriodSales(period="1997-01", orders=885, revenue=money("28592.70", "USD"))],
                order_count=6919,
                customer_count=2357,
            )
        )
    )
    assert "6,919 orders · 2,357 customers" in shown
    assert "USD 244,091.94" in shown
    assert "1997-01" in shown
    assert "By month" in shown
    assert "By day" not in shown


def test_an_empty_dashboard_can_be_shown() -> None:
    assert "0 orders" in text_of(dashboard(GetSalesDashboardResponse()))


def test_an_event_is_one_line_in_plain_words() -> None:
    change = OrderStatusChanged(
        previous_status=OrderStatus.ORDER_STATUS_CREATED, new_status=OrderStatus.ORDER_STATUS_CONFIRMED
    )
    event = RecordedEvent(position=7, aggregate_id="order-1", version=2, event_type=change.DESCRIPTOR.full_name)
    event.data.Pack(change)
    line = text_of(event_line(event))
    assert "OrderStatusChanged order-1 v2  CREATED → CONFIRMED" in line


def test_an_event_of_a_type_that_this_release_does_not_know_is_shown_too() -> None:
    event = RecordedEvent(
        position=7, event_type="orderstream.orders.v9.Later", data=Any(type_url="x/orderstream.Later", value=b"\x01")
    )
    assert "Later" in text_of(event_line(event))
    assert event_json(event)["data"] == {"@type": "x/orderstream.Later", "value": "01"}


def node(position: int, parent: int, **metadata: str) -> CausationNode:
    event = RecordedEvent(position=position, aggregate_id=f"a-{position}", metadata=EventMetadata(**metadata))
    return CausationNode(event=event, parent_position=parent, depth=1 if parent else 0)


def test_events_stand_below_what_led_to_them_and_a_cause_that_is_not_shown_is_named() -> None:
    nodes = [node(2, 0), node(3, 1, actor="ada", reason="call 17"), node(4, 2), node(5, 4), node(6, 2)]
    lines = text_of(causation_tree(GetCausationTreeResponse(nodes=nodes), marked=5)).splitlines()
    assert [line.split(" ")[0] for line in lines] == ["2", "├──", "│", "└──", "3"]
    assert "a-5" in lines[2]
    assert "◀" in lines[2]
    assert "(ada: call 17)" in lines[4]
    assert "← event 1" in lines[4]
    assert node_json(nodes[1])["parent_position"] == "1"
    assert text_of(causation_tree(GetCausationTreeResponse())).strip() == "no events"
