"""How a decision says no."""

from __future__ import annotations


class Rejection(Exception):
    """A rule refuses the command, and nothing changes.

    `reason` is a name of the contract's OrderErrorReason or CustomerErrorReason without its prefix; `metadata` is what
    that reason documents.
    """

    def __init__(self, reason: str, message: str, metadata: dict[str, str]) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = metadata
