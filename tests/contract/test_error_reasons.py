"""Reasons in the contract and reasons in the code are one to one: name, status code and metadata."""

import ast
from collections.abc import Iterator

import grpc
import pytest

from command_server.rejections import CODES
from cqrs import errors
from tools.contract import Reason, error_reasons
from tools.generate import ROOT

REASONS = error_reasons()
COMMON = {reason.name: reason for reason in REASONS if reason.enum == "orderstream.errors.v1.ErrorReason"}
DOMAIN = {reason.name: reason for reason in REASONS if reason.name not in COMMON}
PREFIXES = {
    "orderstream.orders.v1.OrderErrorReason": "ORDER_ERROR_REASON_",
    "orderstream.customers.v1.CustomerErrorReason": "CUSTOMER_ERROR_REASON_",
}

UNEXPECTED = {("INTERNAL", "INTERNAL")}
"""Given for exceptions that are no ServiceError, and so by no class of cqrs/errors.py."""


def service_errors(base: type[errors.ServiceError] = errors.ServiceError) -> Iterator[type[errors.ServiceError]]:
    for found in base.__subclasses__():
        yield found
        yield from service_errors(found)


def rejections() -> Iterator[tuple[str, frozenset[str]]]:
    """Reason and metadata keys of each rejection in the domain's source: `_reject(X.…_REASON_Y, text, key=…)`."""
    for file in sorted((ROOT / "domain").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_reject"):
                continue
            reason = node.args[0]
            assert isinstance(reason, ast.Attribute), f"{file}:{node.lineno}: name the reason of the rejection"
            keys: set[str] = set()
            for keyword in node.keywords:
                if keyword.arg is not None:
                    keys.add(keyword.arg)
                else:
                    keys.update(ast.literal_eval(key) for key in _keys_of(keyword.value))
            yield reason.attr, frozenset(keys)


def _keys_of(expanded: ast.expr) -> list[ast.expr]:
    assert isinstance(expanded, ast.Dict), "metadata are keyword arguments or a dict display"
    return [key for key in expanded.keys if key is not None]


def test_every_reason_is_one_of_its_own() -> None:
    assert len({reason.name for reason in REASONS}) == len(REASONS)


@pytest.mark.parametrize("reason", REASONS, ids=lambda reason: reason.name)
def test_every_documented_code_is_one_of_grpc(reason: Reason) -> None:
    assert reason.code in grpc.StatusCode.__members__
    assert reason.text


def test_the_mechanisms_errors_are_the_reasons_of_the_common_enum() -> None:
    raised = {
        (error.reason, error.code.name)
        for error in service_errors()
        if error.__module__ == errors.__name__ and "reason" in vars(error)
    }

    assert raised | UNEXPECTED == {(reason.name, reason.code) for reason in COMMON.values()}


def test_the_domain_uses_every_reason_of_its_enums_with_the_metadata_that_it_documents() -> None:
    documented = {(PREFIXES[reason.enum] + reason.name, reason.metadata) for reason in DOMAIN.values()}

    assert set(rejections()) == documented


def test_the_command_server_answers_each_rejection_with_its_documented_code() -> None:
    assert {name: code.name for name, code in CODES.items()} == {name: reason.code for name, reason in DOMAIN.items()}


@pytest.mark.parametrize(
    ("error", "keys"),
    [
        (errors.VersionConflict("o", 1, 2), {"aggregate_id", "expected_version", "current_version"}),
        (errors.RequestIdReused("r"), {"request_id"}),
        (errors.AggregateIdTaken("o", "order"), {"aggregate_id", "aggregate_type"}),
        (errors.EventTooLarge(2, 1), {"size_bytes", "limit_bytes"}),
        (errors.ReadModelBehind("orders", 2, 1), {"projection", "required_position", "current_position"}),
        (errors.HistoryChanged("a", "b"), {"token_epoch", "current_epoch"}),
    ],
    ids=lambda value: value.reason if isinstance(value, errors.ServiceError) else "",
)
def test_errors_carry_the_metadata_that_the_contract_documents(error: errors.ServiceError, keys: set[str]) -> None:
    assert COMMON[error.reason].metadata == error.metadata.keys() == keys
