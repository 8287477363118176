"""Kinds of aggregates for tests of fingerprints: folds from source text, messages from lists of their fields."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from cqrs.commit.command import AggregateType

PACKAGE = "sample.v1"

FIELDS: Mapping[str, Mapping[str, int]] = {
    "Account": {"balance": 1, "owner": 2},
    "Opened": {"owner": 1},
    "Paid": {"amount": 1, "note": 2},
}
"""The numbers of each message's fields. All are integers."""

FOLD = """
from sample.v1.messages import Opened, Paid

FEE = 3
KINDS = {"a", "b", "c"}


def _opened(account, event):
    account.owner = event.owner


def _paid(account, event):
    account.balance += _without_fee(event.amount)
    if str(event.note) in KINDS:
        account.balance -= 1


def _without_fee(amount, factor=1):
    return amount * factor - FEE


def unused(account):
    return 7


OTHER = 9
EVOLVE = {Opened: _opened, Paid: _paid}


def evolve(account, event):
    EVOLVE[type(event)](account, event)
"""


def messages(fields: Mapping[str, Mapping[str, int]] = FIELDS) -> dict[str, type[Message]]:
    """The message classes, in a pool of their own."""
    file = FileDescriptorProto(name="sample.proto", package=PACKAGE, syntax="proto3")
    for name, numbers in fields.items():
        message = DescriptorProto(name=name)
        for field, number in numbers.items():
            message.field.add(
                name=field,
                number=number,
                type=FieldDescriptorProto.TYPE_INT64,
                label=FieldDescriptorProto.LABEL_OPTIONAL,
            )
        file.message_type.append(message)
    pool = DescriptorPool()
    pool.Add(file)
    return {name: GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in fields}


def module(source: str, names: Mapping[str, Any] | None = None) -> ModuleType:
    """A module of the package `sample` with this source; its imports are replaced by `names`."""
    made = ModuleType("sample.fold")
    made.__dict__.update(names or {})
    lines = [line for line in source.splitlines() if not line.startswith("from sample.")]
    exec(compile("\n".join(lines), "sample/fold.py", "exec", dont_inherit=True), made.__dict__)  # noqa: S102 - our own text
    return made


def sample_type(source: str = FOLD, fields: Mapping[str, Mapping[str, int]] = FIELDS) -> AggregateType:
    """The aggregate type of this fold and these messages."""
    classes = messages(fields)
    events = [classes["Opened"], classes["Paid"]]
    fold = module(source, classes)
    return AggregateType(
        "account", classes["Account"], fold.evolve, {event.DESCRIPTOR.full_name: event for event in events}
    )
