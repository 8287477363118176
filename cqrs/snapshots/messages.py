"""What messages are made of, as one canonical text (ADR 14)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor


def schema_of(messages: Iterable[Any]) -> str:
    """All of these messages and enums (descriptors), and those that they are made of, field by field, as one text.

    Not the serialised descriptor: what that holds beside the fields changes with the protobuf library.
    """
    written: dict[str, str] = {}
    waiting: list[Descriptor | EnumDescriptor] = list(messages)
    while waiting:
        descriptor = waiting.pop()
        if descriptor.full_name in written:
            continue
        if isinstance(descriptor, Descriptor):
            fields = sorted(descriptor.fields, key=lambda field: field.number)
            written[descriptor.full_name] = f"message {descriptor.full_name} {{{' '.join(map(_field, fields))}}}"
            for field in fields:
                waiting += [each for each in (field.message_type, field.enum_type) if each is not None]
        else:
            values = sorted((value.number, value.name) for value in descriptor.values)
            listed = " ".join(f"{number}={name}" for number, name in values)
            written[descriptor.full_name] = f"enum {descriptor.full_name} {{{listed}}}"
    return "\n".join(text for _, text in sorted(written.items()))


def _field(field: FieldDescriptor) -> str:
    of = field.message_type or field.enum_type
    traits = (
        "repeated" if field.is_repeated else "",
        "presence" if field.has_presence else "",
        f"oneof:{field.containing_oneof.name}" if field.containing_oneof is not None else "",
        of.full_name if of is not None else "",
    )
    return f"{field.number}={field.name}:{field.type}:{':'.join(filter(None, traits))};"
