"""What several renderings share: times, status names, the banner that tells how fresh an answer is."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp
from rich.table import Table
from rich.text import Text

from cli.wording import counted
from orderstream.orders.v1.order_pb2 import OrderStatus
from orderstream.types.v1.freshness_pb2 import (
    FRESHNESS_STATE_BEHIND,
    FRESHNESS_STATE_CURRENT,
    Freshness,
)

STATUS_PREFIX = "ORDER_STATUS_"


def status_name(status: int) -> str:
    """A status without its prefix: "SHIPPED"; its number if it is one that this version does not know."""
    if status in OrderStatus.values():
        return OrderStatus.Name(OrderStatus.ValueType(status)).removeprefix(STATUS_PREFIX)
    return str(status)


def time_text(time: Timestamp) -> str:
    """A time in UTC, to the second."""
    return time.ToDatetime().strftime("%Y-%m-%d %H:%M:%S") + " UTC" if time.ByteSize() else "-"


def facts_table() -> Table:
    """For rows of a name and a value."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    return table


def duration_text(seconds: float) -> str:
    """A time span for people: "0.4 s", "12 s", "3 min 20 s", "2 h 5 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def freshness_banner(freshness: Freshness) -> Text:
    """One line: as of where the answer holds, and a clear warning when it may be stale."""
    as_of = f"as of log position {freshness.as_of_position:,}"
    if freshness.HasField("as_of_time"):
        as_of += f", recorded {time_text(freshness.as_of_time)}"
    if freshness.state == FRESHNESS_STATE_CURRENT:
        return Text(f"current: {as_of}", style="green")
    since = freshness.stale_for.ToNanoseconds() / 1e9
    if freshness.state == FRESHNESS_STATE_BEHIND:
        missing = freshness.log_position - freshness.as_of_position
        verb = "is" if missing == 1 else "are"
        why = f"{counted(missing, 'event')} {verb} not shown yet; behind for {duration_text(since)}"
    elif freshness.stale_for.ByteSize():
        why = f"nothing has been heard from the event log for {duration_text(since)}: newer events may be missing"
    else:
        why = "nothing has been heard from the event log: newer events may be missing"
    return Text(" STALE ", style="bold white on red").append(
        f" {why} ({as_of})", style="bold red not reverse on default"
    )
