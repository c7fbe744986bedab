"""Rates of one client as people write them: `1/client-month`, `2 per user-week`, `one in 9 client-days`."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["parse_rate"]

_DAYS = {"hour": 1 / 24, "day": 1.0, "week": 7.0, "month": 30.0, "year": 365.0}
_RATE = re.compile(
    r"^\s*(?P<number>\d+(?:\.\d+)?|an?|one)?\s*(?:/|\bper\b|\ban?\b|\bin\b\s*(?P<periods>\d+(?:\.\d+)?))\s*"
    r"(?:client|user|connection)[- ](?P<period>\w+?)s?\s*$",
    re.IGNORECASE,
)


def parse_rate(value: Any) -> Any:
    """Return events per client-day for `1/client-month` or `per user-week`; floats (from code) pass through.

    A month is 30 days, a year 365.

    Raises:
        ValueError: another form, or an unknown period.
    """
    if isinstance(value, float):
        return value
    match = _RATE.match(value) if isinstance(value, str) else None
    if match is None or match["period"].lower() not in _DAYS or float(match["periods"] or 1) == 0:
        raise ValueError(
            f"{value!r} is not a rate of one client; allowed: a number, '/client-' or 'per user-', and "
            f"{', '.join(_DAYS)}, as 1/client-month or 2 per user-week"
        )
    number = match["number"] or "1"
    days = _DAYS[match["period"].lower()] * float(match["periods"] or 1)
    return (float(number) if number[0].isdigit() else 1.0) / days
