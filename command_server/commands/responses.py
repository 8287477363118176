"""Responses of command RPCs, as bytes."""

from __future__ import annotations

from google.protobuf.message import Message

from cqrs.wire import length_tag, varint, varint_tag


class ResponseWriter:
    """Writes responses of one type: the resource, its version and a consistency token.

    The bytes are those that protobuf would write. To build the message first would copy the resource into it, which
    takes longer than all the rest of answering.
    """

    def __init__(self, response: type[Message], resource: str) -> None:
        """Write `response`, whose field `resource` is the aggregate's state."""
        numbers = {field.name: field.number for field in response.DESCRIPTOR.fields}
        fields = (resource, "version", "consistency_token")
        if sorted(numbers, key=numbers.__getitem__) != list(fields):
            raise TypeError(f"{response.DESCRIPTOR.full_name} must have the fields {', '.join(fields)}, in this order")
        self._resource_tag = length_tag(numbers[resource])
        self._version_tag = varint_tag(numbers["version"])
        self._token_tag = length_tag(numbers["consistency_token"])

    def __call__(self, state: Message, version: int, token: str) -> bytes:
        """The response to a command after which the aggregate is in this state, of this version."""
        resource, encoded_token = state.SerializeToString(), token.encode()
        return b"".join(
            (
                self._resource_tag,
                varint(len(resource)),
                resource,
                self._version_tag,
                varint(version),
                self._token_tag,
                varint(len(encoded_token)),
                encoded_token,
            )
        )
