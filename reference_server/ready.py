"""Ready files: how a gateway says that it listens, and where. From ports to a JSON file that appears whole."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import orjson

__all__ = ["write_ready"]


def write_ready(path: Path, value: dict[str, Any]) -> None:
    """Write a file in one step: whoever sees it can read all of it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_bytes(orjson.dumps(value))
    draft.replace(path)
