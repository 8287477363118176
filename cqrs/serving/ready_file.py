"""The file by which a process tells who started it where it listens."""

from __future__ import annotations

import json
import os
from pathlib import Path


class ReadyFile:
    """JSON `{"pid": int, "grpc": "HOST:PORT", "metrics": "HOST:PORT" or null}`, there while the process serves."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, *, grpc_address: str, metrics_address: str | None) -> None:
        """Write it in one step: a reader sees all of it or no file."""
        content = {"pid": os.getpid(), "grpc": grpc_address, "metrics": metrics_address}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        part = self._path.with_name(f"{self._path.name}.{os.getpid()}.part")
        part.write_text(json.dumps(content) + "\n", "utf-8")
        part.replace(self._path)

    def remove(self) -> None:
        """Remove it, unless another process has put its own there meanwhile."""
        try:
            owner = json.loads(self._path.read_text("utf-8")).get("pid")
        except (FileNotFoundError, ValueError):
            return
        if owner == os.getpid():
            self._path.unlink(missing_ok=True)
