"""A read DB whose projector is the test, which commits and sends notifications, or holds them back, as it likes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa

from cqrs.database.engine import open_engine
from cqrs.database.migrations import upgrade_schema
from cqrs.projection.tables import checkpoints, projections
from cqrs.records import to_timestamp
from orderstream.orders.v1.order_pb2 import OrderStatus
from orderstream.orders.v1.queries_pb2 import OrderView
from orderstream.projections.v1.notification_pb2 import ProjectionChanged
from orderstream.types.v1.money_pb2 import Money
from readmodel import orders, sales
from readmodel.schema import READ_SCHEMA

EPOCH = "11111111-2222-7333-8444-555555555555"
OTHER_EPOCH = "99999999-2222-7333-8444-555555555555"

RECORD_TIME = 1_700_000_000_000_000
"""Record time of position 0; each position is a second later."""


class ReadDb:
    """Writes a read DB as the projector would."""

    def __init__(self, file: Path, *, epoch: str = EPOCH) -> None:
        self.file = file
        self.url = f"sqlite:///{file}"
        self.epoch = epoch
        self.generation = 1
        self._engine = open_engine(self.url, access="write")
        upgrade_schema(self._engine, READ_SCHEMA)
        with self._engine.begin() as connection:
            for name in ("orders", "sales"):
                connection.execute(
                    projections.insert().values(name=name, code_version=1, serving_generation=1, epoch=epoch)
                )
        for name in ("orders", "sales"):
            self.advance(name, 0)

    def close(self) -> None:
        self._engine.dispose()

    def forget(self) -> None:
        """As it is before a projector has run for the first time."""
        with self._engine.begin() as connection:
            connection.execute(checkpoints.delete())
            connection.execute(projections.delete())

    def advance(self, projection: str, position: int, *rows: sa.Executable) -> ProjectionChanged:
        """Commit `rows` and the checkpoint; returns the notification that a projector would send, but for its keys."""
        with self._engine.begin() as connection:
            here = sa.and_(checkpoints.c.projection == projection, checkpoints.c.generation == self.generation)
            before = connection.execute(sa.select(checkpoints.c.position).where(here)).scalar() or 0
            connection.execute(checkpoints.delete().where(here))
            connection.execute(
                checkpoints.insert().values(
                    projection=projection,
                    generation=self.generation,
                    slot=0,
                    position=position,
                    hash=bytes(32),
                    epoch=self.epoch,
                    record_time=RECORD_TIME + position * 1_000_000 if position else 0,
                )
            )
            for statement in rows:
                connection.execute(statement)
        return ProjectionChanged(
            projection=projection,
            generation=self.generation,
            epoch=self.epoch,
            from_position=before,
            to_position=position,
            to_record_time=to_timestamp(RECORD_TIME + position * 1_000_000),
        )

    def order(self, order_id: str, position: int, **values: Any) -> ProjectionChanged:
        """Commit a change of an order as the event at `position`."""
        change = self.advance("orders", position, *self.order_row(order_id, position, **values))
        change.keys.append(f"orders:{order_id}")
        return change

    def order_row(
        self,
        order_id: str,
        position: int,
        *,
        version: int = 1,
        customer_id: str = "c1",
        customer_name: str = "Ada",
        status: int = OrderStatus.ORDER_STATUS_CREATED,
        create_time: int = RECORD_TIME,
        cancel_reason: str = "",
    ) -> tuple[sa.Executable, ...]:
        """Statements that put an order's row."""
        view = OrderView(
            order_id=order_id,
            customer_id=customer_id,
            status=OrderStatus.Name(status),  # type: ignore[arg-type]
            total=Money(currency_code="USD", units=10, nanos=500_000_000),
            cancel_reason=cancel_reason,
            version=version,
            position=position,
        )
        view.create_time.FromMicroseconds(create_time)
        table = orders.orders
        return (
            table.delete().where(table.c.generation == self.generation, table.c.order_id == order_id),
            table.insert().values(
                generation=self.generation,
                order_id=order_id,
                customer_id=customer_id,
                customer_name=customer_name,
                customer_email=f"{customer_id}@example.org",
                status=status,
                currency="USD",
                total_units=10,
                total_nanos=500_000_000,
                create_time=create_time,
                update_time=create_time,
                version=version,
                position=position,
                document=view.SerializeToString(),
            ),
        )

    def customer(self, customer_id: str, position: int, *, name: str = "Ada", version: int = 1) -> ProjectionChanged:
        """Commit a change of a customer as the event at `position`."""
        table = orders.customers
        change = self.advance(
            "orders",
            position,
            table.delete().where(table.c.customer_id == customer_id),
            table.insert().values(
                generation=self.generation,
                customer_id=customer_id,
                name=name,
                email=f"{customer_id}@example.org",
                create_time=RECORD_TIME,
                update_time=RECORD_TIME,
                version=version,
                position=position,
            ),
        )
        change.keys.append(f"customers:{customer_id}")
        return change

    def sales(self, position: int, *rows: sa.Executable) -> ProjectionChanged:
        """Commit a change of the dashboard as the event at `position`."""
        change = self.advance("sales", position, *rows)
        change.keys.append(sales.CHANGE_KEY)
        return change
