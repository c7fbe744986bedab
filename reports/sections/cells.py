"""Table cells that several sections need."""

from __future__ import annotations

import math

from reports.numbers import ABSENT, count, seconds, share
from reports.page import Cell, Tone

__all__ = [
    "count_cell",
    "engine_cell",
    "mark",
    "percentile_cell",
    "seconds_cell",
    "share_cell",
    "verdict_cell",
]

_MARKS = {"pass": "✓", "fail": "✗", "unknown": "?"}
_TONES: dict[str, Tone] = {
    "pass": "pass",
    "fail": "fail",
    "unknown": "unknown",
    "theory": "theory",
    "simulated": "simulated",
    "real": "real",
}


def mark(verdict: str) -> str:
    """Return the sign of a verdict, so that no reader depends on its colour."""
    return _MARKS.get(verdict, "?")


def verdict_cell(verdict: str) -> Cell:
    """Return a verdict with its sign."""
    return Cell(f"{mark(verdict)} {verdict}", tone=_TONES.get(verdict, "unknown"))


def engine_cell(engine: str) -> Cell:
    """Return an engine's name in its colour."""
    return Cell(engine, tone=_TONES.get(engine, ""))


def count_cell(value: float) -> Cell:
    """Return a whole number."""
    return Cell(count(value), value)


def seconds_cell(value: float) -> Cell:
    """Return seconds without their unit."""
    return Cell(ABSENT) if math.isnan(value) else Cell(seconds(value), value)


def share_cell(value: float, lo: float, hi: float) -> Cell:
    """Return a share with its interval; where it is not known, a dash."""
    if math.isnan(value):
        return Cell(ABSENT)
    interval = "" if math.isnan(lo) or math.isnan(hi) else f"{share(lo)} to {share(hi)}"
    return Cell(share(value), value, detail=interval)


def percentile_cell(value: float, lo: float, hi: float, n: int, needed: int) -> Cell:
    """Return a percentile in seconds with its 95 % interval, or why it has none."""
    if math.isnan(value):
        least = "" if math.isnan(lo) else f"at least {seconds(lo)}"
        return Cell("not reached", math.inf, detail=least) if n else Cell(ABSENT)
    if math.isnan(lo) and math.isnan(hi):
        few = f"needs n ≥ {needed}" if n < needed else "no bound"
        return Cell(seconds(value), value, detail=few)
    return Cell(seconds(value), value, detail=f"{seconds(lo)} to {seconds(hi)}")
