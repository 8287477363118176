"""How errors become google.rpc.Status."""

from __future__ import annotations

from base64 import b64encode
from typing import TypeVar
from urllib.parse import quote

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure, ResourceInfo, RetryInfo
from google.rpc.status_pb2 import Status
from hypothesis import example, given
from hypothesis import strategies as st

from cqrs.errors import (
    AggregateIdTaken,
    HistoryChanged,
    InvalidRequest,
    Overloaded,
    ReadModelBehind,
    Rejected,
    ServiceError,
    Violation,
)
from cqrs.serving.errors import answer_of, internal_error, status_of

MessageT = TypeVar("MessageT", bound=Message)

TRAILER_BYTES = 8 * 1024


def details(error: ServiceError, kind: type[MessageT]) -> list[MessageT]:
    name = f"type.googleapis.com/{kind.DESCRIPTOR.full_name}"
    return [kind.FromString(packed.value) for packed in status_of(error).details if packed.type_url == name]


def test_every_error_begins_with_an_error_info_of_our_domain() -> None:
    status = status_of(ReadModelBehind("orders", 9, 4))
    assert status.code == grpc.StatusCode.ABORTED.value[0]
    info = ErrorInfo.FromString(status.details[0].value)
    assert (info.reason, info.domain) == ("READ_MODEL_BEHIND", "orderstream")
    assert info.metadata == {"projection": "orders", "required_position": "9", "current_position": "4"}


def test_an_error_that_is_worth_a_retry_says_when() -> None:
    (retry,) = details(Overloaded("too much"), RetryInfo)
    assert retry.retry_delay.ToMilliseconds() == 100
    assert not details(HistoryChanged("a", "b"), RetryInfo)


@pytest.mark.parametrize(
    ("error", "kind", "name"),
    [
        (Rejected(grpc.StatusCode.NOT_FOUND, "ORDER_NOT_FOUND", "no order o-1", {"order_id": "o-1"}), "order", "o-1"),
        (AggregateIdTaken("c-1", "customer"), "customer", "c-1"),
    ],
)
def test_what_is_missing_or_taken_is_named_as_a_resource(error: ServiceError, kind: str, name: str) -> None:
    (resource,) = details(error, ResourceInfo)
    assert (resource.resource_type, resource.resource_name, resource.description) == (kind, name, error.message)


def test_a_rule_that_refuses_is_a_failed_precondition_of_its_subject() -> None:
    error = Rejected(grpc.StatusCode.FAILED_PRECONDITION, "ORDER_WOULD_BE_EMPTY", "empty", {"order_id": "o-1"})
    (failure,) = details(error, PreconditionFailure)
    assert [(each.type, each.subject) for each in failure.violations] == [("ORDER_WOULD_BE_EMPTY", "o-1")]


def test_an_answer_has_the_same_message_in_status_and_details() -> None:
    answer = answer_of(InvalidRequest([Violation("name", "x" * 5_000)]))
    assert Status.FromString(answer.trailing_metadata[0][1]).message == answer.message


def test_a_defect_tells_its_incident_id_and_nothing_else() -> None:
    answer = internal_error("0193")
    info = ErrorInfo.FromString(Status.FromString(answer.trailing_metadata[0][1]).details[0].value)
    assert (answer.code, info.reason, dict(info.metadata)) == (
        grpc.StatusCode.INTERNAL,
        "INTERNAL",
        {"incident_id": "0193"},
    )


@example([Violation("😀" * 300, "😀" * 600)] * 40)
@given(st.lists(st.builds(Violation, st.text(max_size=300), st.text(max_size=600)), min_size=1, max_size=40))
def test_no_answer_is_larger_than_the_trailers_that_peers_take(violations: list[Violation]) -> None:
    answer = answer_of(InvalidRequest(violations))
    encoded = len(quote(answer.message)) + len(b64encode(answer.trailing_metadata[0][1]))
    assert encoded < TRAILER_BYTES - 300
    (bad_request,) = details(InvalidRequest(violations), BadRequest)
    assert len(bad_request.field_violations) in range(1, len(violations) + 1)


def test_a_hundred_ordinary_violations_all_fit() -> None:
    violations = [Violation(f"items[{index}].sku", "must not be empty") for index in range(100)]
    (bad_request,) = details(InvalidRequest(violations), BadRequest)
    assert len(bad_request.field_violations) == 100
