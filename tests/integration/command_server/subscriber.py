"""A subscriber as a process of its own, which can be killed at any moment and begins where it was.

    python -m tests.integration.command_server.subscriber HOST:PORT FILE UNTIL PARENT_PID

It appends a line for each answer to FILE: the answer's resume token, then position and id of each event. A line is
written in one go: what a kill leaves is whole lines, and perhaps a part of one, which counts as not received. It ends
at position UNTIL (0: never), or when the server does.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import grpc

from cqrs.broker.tether import die_with_parent
from orderstream.events.v1.event_service_pb2 import SubscribeRequest
from orderstream.events.v1.event_service_pb2_grpc import EventServiceStub


def whole_lines(file: Path) -> list[str]:
    """The lines that were written to their end; a part of one is cut off."""
    text = file.read_text() if file.exists() else ""
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        file.write_text(whole)
    return whole.splitlines()


def main(address: str, file: Path, until: int) -> int:
    lines = whole_lines(file)
    request = SubscribeRequest(max_events=20)
    if lines:
        request.resume_token = lines[-1].split(" ")[0]
    sink = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with grpc.insecure_channel(address) as channel:
        stub: Any = EventServiceStub(channel)
        try:
            for answer in stub.Subscribe(request):
                events = (f"{event.position}={event.event_id}" for event in answer.events)
                os.write(sink, (" ".join((answer.resume_token, *events)) + "\n").encode())
                if 0 < until <= answer.position:
                    return 0
        except grpc.RpcError as error:
            call: Any = error
            sys.stderr.write(f"{call.code().name}: {call.details()}\n")
    return 1


if __name__ == "__main__":
    die_with_parent(int(sys.argv[4]))
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
