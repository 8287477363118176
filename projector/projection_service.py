"""ProjectionService: tells operators how the projections stand."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import grpc.aio

from cqrs.projection.status import ProjectionStatus
from cqrs.records import to_timestamp
from orderstream.projections.v1.projection_service_pb2 import (
    DESCRIPTOR,
    ListProjectionsRequest,
    ListProjectionsResponse,
)
from orderstream.projections.v1.projection_service_pb2 import ProjectionStatus as StatusMessage
from orderstream.projections.v1.projection_service_pb2_grpc import ProjectionServiceServicer

SERVICE: str = DESCRIPTOR.services_by_name["ProjectionService"].full_name


class ProjectionServer(ProjectionServiceServicer):
    """Answers from the statuses that the runners keep. Works in every state of the projections, HALTED included."""

    def __init__(self, statuses: Sequence[ProjectionStatus]) -> None:
        self._statuses = sorted(statuses, key=lambda status: status.name)

    async def ListProjections(
        self,
        request: ListProjectionsRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> ListProjectionsResponse:
        """A row per projection, by name."""
        return ListProjectionsResponse(projections=[_to_message(status) for status in self._statuses])


def _to_message(status: ProjectionStatus) -> StatusMessage:
    message = StatusMessage(
        name=status.name,
        generation=status.generation,
        state=status.state,
        position=status.position,
        log_position=status.lag.log_position,
        lag_events=status.lag.events,
        applied_events=status.applied_events,
        error=status.error,
    )
    if status.position:
        message.position_time.CopyFrom(to_timestamp(status.position_time))
    if status.alive_time:
        message.last_alive_time.CopyFrom(to_timestamp(status.alive_time))
    if status.lag.events:
        message.lag_time.FromTimedelta(timedelta(seconds=status.lag.seconds))
    return message
