"""The Python client of Orderstream: channels, typed errors, and commands that are safe to repeat.

from orderstream.orders.v1.commands_pb2 import CreateOrderRequest
from orderstream_client import OrderstreamClient, connect

client = OrderstreamClient(connect("127.0.0.1:50051"), connect("127.0.0.1:50052"))
placed = await client.command(client.orders.CreateOrder, CreateOrderRequest(customer_id="c-1", items=[…]))
shown = await client.query(client.order_queries.GetOrder, GetOrderRequest(order_id=placed.order.order_id))

async for result in client.execute(CreateOrderRequest(…) for row in rows):
    …  # many of them, as fast as the server takes them
"""

from orderstream_client.bulk import BulkOptions, CommandResult, execute_commands
from orderstream_client.channel import connect
from orderstream_client.client import OrderstreamClient
from orderstream_client.errors import FieldViolation, OrderstreamCallError, decode_error, decode_status
from orderstream_client.retry import RetryPolicy

__all__ = [
    "BulkOptions",
    "CommandResult",
    "FieldViolation",
    "OrderstreamCallError",
    "OrderstreamClient",
    "RetryPolicy",
    "connect",
    "decode_error",
    "decode_status",
    "execute_commands",
]
