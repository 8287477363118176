"""What the comments of the contract say, read from the descriptors that protoc makes."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import NamedTuple

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from tools.generate import protoc

_ENUMS_OF_A_FILE = 5
_VALUES_OF_AN_ENUM = 2
"""Field numbers in descriptor.proto; a comment's place is a path of such numbers and indexes."""

_SPOKEN = re.compile(r"(?P<code>[A-Z_]+)\. (?P<text>.*)", re.DOTALL)


class Reason(NamedTuple):
    """One reason of an error, as an errors.proto documents it."""

    enum: str
    """Full name of its enum, such as `orderstream.errors.v1.ErrorReason`."""
    name: str
    """As it goes over the wire: without the prefix of the enum."""
    code: str
    """Name of the gRPC status code that its comment begins with."""
    text: str
    """The rest of the comment, on one line."""

    @property
    def metadata(self) -> frozenset[str]:
        """The keys that the comment promises in ErrorInfo.metadata."""
        promised = re.search(r"Metadata: (?P<keys>[^.]*)\.", re.sub(r"\([^)]*\)", "", self.text))
        return frozenset(key.strip() for key in promised["keys"].split(",")) if promised else frozenset()


def load_files() -> list[FileDescriptorProto]:
    """Every file below proto/, with its comments."""
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch, "contract.binpb")
        protoc(f"--descriptor_set_out={output}", "--include_source_info")
        return list(FileDescriptorSet.FromString(output.read_bytes()).file)


def error_reasons() -> list[Reason]:
    """All reasons of all errors.proto, in their order; the UNSPECIFIED ones left out.

    Raises:
        ValueError: a reason's comment does not begin with a status code and a full stop.
    """
    return [reason for file in load_files() if file.name.endswith("/errors.proto") for reason in _reasons_of_file(file)]


def enum_comment(file: FileDescriptorProto, enum: int) -> str:
    """The comment over the file's enum of this index, on one line."""
    return _comments(file).get((_ENUMS_OF_A_FILE, enum), "")


def _reasons_of_file(file: FileDescriptorProto) -> list[Reason]:
    comments = _comments(file)
    reasons = []
    for enum_index, enum in enumerate(file.enum_type):
        prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", enum.name).upper() + "_"
        for value_index, value in enumerate(enum.value):
            if value.number == 0:
                continue
            comment = comments.get((_ENUMS_OF_A_FILE, enum_index, _VALUES_OF_AN_ENUM, value_index), "")
            spoken = _SPOKEN.fullmatch(comment)
            if spoken is None:
                raise ValueError(
                    f"{file.name}: the comment of {value.name} must begin with its status code: {comment!r}"
                )
            name = value.name.removeprefix(prefix)
            reasons.append(Reason(f"{file.package}.{enum.name}", name, spoken["code"], spoken["text"]))
    return reasons


def _comments(file: FileDescriptorProto) -> dict[tuple[int, ...], str]:
    return {
        tuple(location.path): " ".join(location.leading_comments.split())
        for location in file.source_code_info.location
        if location.leading_comments
    }
