"""Durations as people write them: ``250ms``, ``30s``, ``5m``, ``2h``, ``1d``; in code, seconds."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

__all__ = ["DAY_S", "Duration", "PositiveDuration", "format_duration", "parse_duration"]

DAY_S = 86400.0
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": DAY_S}
_WRITTEN = re.compile(r"^\s*(-?\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\s*$")
_SCHEMA = {"type": "string", "pattern": r"^\d+(\.\d+)?(ms|s|m|h|d)$", "examples": ["30s", "250ms"]}


def parse_duration(value: Any) -> Any:
    """Return seconds for a written duration; floats (seconds, from code) pass through.

    Raises:
        ValueError: a bare integer or anything else without a unit.
    """
    if isinstance(value, float):
        return value
    if isinstance(value, str) and (match := _WRITTEN.match(value)):
        # Divided, not multiplied by 0.001: 208ms must be the same float as 0.208.
        number, unit = float(match[1]), match[2]
        return number / 1000 if unit == "ms" else number * _SECONDS[unit]
    raise ValueError(f"{value!r} is not a duration; allowed: a number and a unit, as 250ms, 30s, 5m, 24h")


def format_duration(seconds: float) -> str:
    """Return ``seconds`` in the largest unit that keeps the number at or above 1 and exact."""
    for unit in ("d", "h", "m"):
        count = seconds / _SECONDS[unit]
        if count >= 1 and count == int(count):
            return f"{int(count)}{unit}"
    if 0 < seconds < 1:
        return f"{seconds * 1000:g}ms"
    return f"{seconds:.12g}s"


_write = PlainSerializer(format_duration, return_type=str, when_used="json")

Duration = Annotated[
    float, Field(ge=0, allow_inf_nan=False), BeforeValidator(parse_duration), _write, WithJsonSchema(_SCHEMA)
]
"""Seconds, zero allowed; written with a unit in files."""

PositiveDuration = Annotated[
    float, Field(gt=0, allow_inf_nan=False), BeforeValidator(parse_duration), _write, WithJsonSchema(_SCHEMA)
]
"""Seconds above zero; written with a unit in files."""
