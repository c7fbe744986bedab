"""Numbers and names as people read them: one formatter, so that every page shows the same numbers.

From values to short strings; the CSV tables keep full precision. Seconds are written without their
unit where the column's title has it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Final

__all__ = [
    "ABSENT",
    "MINUS",
    "NBSP",
    "caption_seconds",
    "cause_name",
    "change",
    "count",
    "interval",
    "milliseconds",
    "percent",
    "plain",
    "rate",
    "seconds",
    "share",
    "signed_seconds",
    "size_bytes",
    "time_span",
    "words",
]

ABSENT: Final = "–"
NBSP: Final = "\u00a0"  # between a number and its unit
MINUS: Final = "\u2212"
_CAUSES: Final = {
    "close_frame": "close frame",
    "tcp_fin": "TCP FIN",
    "tcp_reset": "TCP reset",
    "tcp_timeout": "TCP gave up",
    "send_error": "send error",
    "session_timeout": "session timeout",
    "state_check": "state check",
    "sweep": "health sweep",
    "ttl": "store TTL",
    "node_lease": "node lease",
    "memory_pressure": "memory pressure",
    "take_over": "take-over",
    "": "not attributed",
}


def _dash_where_absent(text: Callable[[float], str]) -> Callable[[float | None], str]:
    """Have a formatter write a dash for None and NaN."""

    @wraps(text)
    def dash_or_text(value: float | None) -> str:
        return ABSENT if value is None or math.isnan(value) else text(value)

    return dash_or_text


@_dash_where_absent
def seconds(value: float) -> str:
    """Seconds with the digits that matter: 924.6, 84.97, 0.012, 0.0005; a dash where there is none."""
    if math.isinf(value):
        return "never" if value > 0 else f"{MINUS}∞"
    size = abs(value)
    digits = 1 if size >= 99.995 else 2 if size >= 0.9995 else 3 if size >= 0.00995 or not size else 4
    text = f"{size:,.{digits}f}"
    return f"{MINUS}{text}" if value < 0 and float(text.replace(",", "")) else text


def signed_seconds(value: float | None) -> str:
    """Return a difference in seconds with its sign: +0.31, −2.50, 0.000."""
    text = seconds(value)
    if text == "never":
        return "+∞"
    if text == ABSENT or text.startswith(MINUS) or not text.strip("0.,"):
        return text
    return f"+{text}"


def caption_seconds(value: float | None) -> str:
    """Seconds with their unit, for sentences and captions: ``84.97 s``."""
    text = seconds(value)
    return text if text in (ABSENT, "never") else f"{text}{NBSP}s"


def time_span(least_s: float, most_s: float, unit: bool = True) -> str:
    """Return a range of seconds, as one number where both ends are written alike: ``70.00 to 100.0 s``."""
    low, high = seconds(least_s), seconds(most_s)
    last = caption_seconds(most_s) if unit else high
    return last if low == high else f"{low}{NBSP}to{NBSP}{last}"


@_dash_where_absent
def milliseconds(value_s: float) -> str:
    """Seconds shown as milliseconds, with the unit: ``12.3 ms``."""
    size = value_s * 1000
    return f"{size:,.{0 if abs(size) >= 99.95 else 1 if abs(size) >= 0.9995 else 3}f}{NBSP}ms"


def interval(lo: float | None, hi: float | None) -> str:
    """Return a confidence interval in seconds; ``no interval`` where the sample is too small for one.

    One open side is written with a dash: the sample is too small for that bound alone.
    """
    ends = seconds(lo), seconds(hi)
    return "no interval" if ends == (ABSENT, ABSENT) else " to ".join(ends)


@_dash_where_absent
def share(value: float) -> str:
    """Return a fraction as a percentage: ``98.4 %``; only a true 0 or 1 is written 0 % or 100 %."""
    text = f"{value * 100:.1f}"
    if text == "100.0" and value < 1:
        return f">{NBSP}99.9{NBSP}%"
    if text == "0.0" and value > 0:
        return f"<{NBSP}0.1{NBSP}%"
    return f"{text.removesuffix('.0')}{NBSP}%"


@_dash_where_absent
def rate(value: float) -> str:
    """Return a rate with three significant digits: 0.00123, 4.56, 1,230; ``∞`` where nothing bounds it."""
    if math.isinf(value):
        return "∞"
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


@_dash_where_absent
def plain(value: float) -> str:
    """Return a number whose unit is not known, with four significant digits."""
    return f"{value:.4g}"


@_dash_where_absent
def percent(value: float) -> str:
    """Return a number that is a percentage already, with three significant digits: 2.69 %, 104 %."""
    return f"{rate(value)}{NBSP}%"


def change(before: float, after: float) -> str:
    """Return how a value is above or below an earlier one: ``+12.3 %``, ``the same``; a dash against 0."""
    if math.isclose(after, before):  # sums of the same numbers in another order differ in their last digit
        return "the same"
    if not before:
        return ABSENT
    more = 100 * (after / before - 1)
    return f"{'+' if more >= 0 else MINUS}{percent(abs(more))}"


@_dash_where_absent
def size_bytes(value: float) -> str:
    """Return a size in MiB or GiB; one that is small but not 0 has a decimal."""
    gibi, mebi = value / 2**30, value / 2**20
    return f"{gibi:.1f}{NBSP}GiB" if gibi >= 1 else f"{mebi:.{1 if 0 < mebi < 1 else 0}f}{NBSP}MiB"


@_dash_where_absent
def count(value: float) -> str:
    """Return a whole number with thousands separated: 12,345."""
    return f"{round(value):,}"


def words(name: str) -> str:
    """Return an identifier as words: ``socket_closed`` becomes ``socket closed``."""
    return name.replace("_", " ")


def cause_name(cause: str) -> str:
    """Return the layer that ended a connection, as words; an unknown one is written out as it is."""
    return _CAUSES.get(cause, words(cause))
