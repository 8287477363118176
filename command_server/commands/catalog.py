"""Every command RPC. Workers name them by their place here."""

from __future__ import annotations

from command_server.commands import customers, orders
from command_server.commands.bulk import BulkMethod
from command_server.commands.rpc import CommandMethod

_ORDERS = [CommandMethod(orders.SERVICE, "order", rpc) for rpc in orders.RPCS]
_CUSTOMERS = [CommandMethod(customers.SERVICE, "customer", rpc) for rpc in customers.RPCS]


def _field(name: str) -> str:
    """CreateOrder → create_order: the fields of Command and CommandOutcome are named after the RPCs."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).removeprefix("_")


BULK = BulkMethod({_field(method.name): method for method in (*_ORDERS, *_CUSTOMERS)})

METHODS: tuple[CommandMethod | BulkMethod, ...] = (*_ORDERS, *_CUSTOMERS, BULK)
