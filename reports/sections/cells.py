"""Tables and their cells, and the section that stands in for data that are not there."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import pandas as pd

from reports.numbers import ABSENT, count, rate, seconds, share, time_span
from reports.page import Cell, Section, Table, Text, Tone
from reports.run_tables import ENGINES, RunTables

__all__ = [
    "INTERVALS",
    "by_fault",
    "count_cell",
    "engine_cell",
    "mark",
    "missing",
    "percentile_cell",
    "rate_cell",
    "seconds_cell",
    "share_cell",
    "table_of",
    "verdict_cell",
]

_MARKS = {"pass": "✓", "fail": "✗", "unknown": "?", "partial": "…", "finding": "•"}
_TONES: dict[str, Tone] = {
    "pass": "pass",
    "fail": "fail",
    "unknown": "unknown",
    "theory": "theory",
    "simulated": "simulated",
    "real": "real",
}


INTERVALS = (
    "Below each percentile is its 95 % interval. Where there is none, there are too few faults for it: a p50 takes 6, "
    "a p95 72, a p99 368."
)
"""The note of a table with percentiles."""
Row = Mapping[Hashable, Any]
Columns = Mapping[str, tuple[str, Callable[[Any], Cell]] | Callable[[Row], Cell]]
"""By its heading, what a column shows: the name in the CSV table and the cell of its value, or a cell of the row."""


def by_fault(found: pd.DataFrame, tables: RunTables) -> pd.DataFrame:
    """Return rows in the order of the scenario's faults, those of each in the order of the engines."""
    order = {name: n for n, name in enumerate((*tables.faults, *ENGINES))}
    return found.sort_values(["fault", "engine"], key=lambda names: names.map(order), kind="stable")


def table_of(found: pd.DataFrame, columns: Columns, **options: Any) -> Table:
    """Return a row of cells for each row of a CSV table; ``options`` are those of `Table`."""
    shown = [
        [column(row) if callable(column) else column[1](row[column[0]]) for column in columns.values()]
        for row in found.to_dict("records")
    ]
    return Table(tuple(columns), shown, **options)


def missing(anchor: str, title: str, why: str) -> Section:
    """Return a section that says why it has nothing to show."""
    return Section(anchor, title, [Text(why, "missing")])


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


def rate_cell(value: float) -> Cell:
    """Return a rate with three significant digits."""
    return Cell(rate(value), value)


def share_cell(value: float, lo: float = math.nan, hi: float = math.nan) -> Cell:
    """Return a share with its interval; where it is not known, a dash."""
    if math.isnan(value):
        return Cell(ABSENT)
    interval = "" if math.isnan(lo) or math.isnan(hi) else f"{share(lo)} to {share(hi)}"
    return Cell(share(value), value, detail=interval)


def percentile_cell(value: float, lo: float, hi: float, n: int) -> Cell:
    """Return a percentile in seconds with its 95 % interval, if it has one."""
    if math.isnan(value):
        least = "" if math.isnan(lo) else f"at least {seconds(lo)}"
        return Cell("too few noticed", math.inf, detail=least) if n else Cell(ABSENT)
    if math.isnan(lo) and math.isnan(hi):
        return Cell(seconds(value), value, detail="no interval")
    return Cell(seconds(value), value, detail=time_span(lo, hi, unit=False))
