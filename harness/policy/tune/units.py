"""Budgets as people write them, `40/s`, `5kB/s`; numbers and rates in words. Strings and numbers only."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from harness.theory.costs import PER_CLIENTS

__all__ = ["Budget", "format_number", "format_rate", "parse_budget"]

_BUDGET = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([kKM]i?B|B)?\s*/\s*s\s*$")
_BYTES = {"B": 1.0, "kB": 1e3, "MB": 1e6, "KiB": 1024.0, "MiB": 1024.0**2}


def format_number(value: float) -> str:
    """Return three significant digits, and whole thousands in full."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def format_rate(per_client_day: float) -> str:
    """Return a rate in words: `0.88 a client-day`, `one in 108 client-days`, `one in 12 client-years`."""
    if per_client_day >= 0.5:
        return f"{format_number(per_client_day)} a client-day"
    if per_client_day <= 1e-9:
        return "less than one in 2.7 million client-years"
    days = 1 / per_client_day
    if days < 730:
        return f"one in {days:.3g} client-days"
    return f"one in {format_number(days / 365)} client-years"


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit of the steady cost of 1000 clients: frames a second, or bytes a second."""

    unit: Literal["frames", "bytes"]
    per_s: float


def parse_budget(value: Any) -> Any:
    """Return the budget that `40/s` (frames) or `5kB/s` (bytes) stands for; both are of 1000 clients.

    Raises:
        ValueError: another form.
    """
    if isinstance(value, Budget):
        return value
    match = _BUDGET.match(value) if isinstance(value, str) else None
    if match is None or (match[2] is not None and match[2] not in _BYTES):
        raise ValueError(
            f"{value!r} is not a budget; allowed: frames as 40/s, or bytes as 5kB/s or 4KiB/s, "
            f"each for {PER_CLIENTS} clients"
        )
    if match[2] is None:
        return Budget("frames", float(match[1]))
    return Budget("bytes", float(match[1]) * _BYTES[match[2]])
