"""How long until each milestone: percentiles with their intervals and n, and the curves."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from reports.gallery import Gallery
from reports.numbers import ABSENT, cause_name, count, share, words
from reports.page import Cell, Section, Table, Text
from reports.run_tables import ENGINES, MILESTONES, PERCENTILES, RunTables
from reports.sections.cells import INTERVALS, count_cell, engine_cell, percentile_cell, seconds_cell

__all__ = ["latency_section"]

_COLUMNS = ("fault", "engine", "n", "not detected", "mean (s)", "p50 (s)", "p95 (s)", "p99 (s)", "max (s)")

_PARTS = {
    "node": "Until suspected, by the node that held the client",
    "cause": "Until suspected, by the layer that decided (of what that layer caught alone)",
}


def latency_section(tables: RunTables, gallery: Gallery) -> Section:
    """Return the curves, then a table for each milestone, theory's rows among the measured ones."""
    qos, laws = tables.table("qos"), tables.table("laws")
    measured = qos[qos["n"] > 0].to_dict("records")
    predicted = laws[laws["detected_share"].notna()].to_dict("records")
    found = []
    for milestone in MILESTONES:
        rows = []
        for fault in tables.faults:
            of = (fault, milestone)
            rows += [_theory_row(law) for law in predicted if (law["fault"], law["milestone"]) == of]
            here = [row for row in measured if (row["fault"], row["milestone"]) == of]
            rows += [_measured_row(row) for row in sorted(here, key=lambda row: ENGINES.index(row["engine"]))]
        if rows:
            found.append(
                Table(
                    _COLUMNS,
                    rows,
                    title=f"From the fault until {words(milestone)}",
                    note=INTERVALS,
                    csv="qos.csv",
                    folded=milestone not in ("suspected", "store_cleared"),
                )
            )
    if not found:
        return Section(
            "latency",
            "Detection latency",
            [
                Text("There is no latency to show: the run has neither laws nor measured faults.", "missing"),
                *gallery.get("curves", []),
            ],
        )
    found += [
        table
        for by, title in _PARTS.items()
        if (table := _parts_table(tables.table("breakdown"), by, title)) is not None
    ]
    found += _revivals(tables)
    absent = [engine for engine in ENGINES if engine not in tables.engines]
    notes = [Text(f"Not part of this run: {', '.join(absent)}.", "missing")] if absent else []
    return Section("latency", "Detection latency", [*notes, *gallery.get("curves", []), *found])


def _revivals(tables: RunTables) -> list[Table]:
    """When clients were given up, as they learnt when their fault healed."""
    laws = tables.table("revival_law")
    if laws.empty:
        return []

    def quantile(row: Mapping[Hashable, Any], p: str) -> Cell:
        low, high = seconds_cell(row[f"{p}_lo_s"]).text, seconds_cell(row[f"{p}_hi_s"]).text
        return Cell(seconds_cell(row[f"{p}_s"]).text, row[f"{p}_s"], detail=f"{low} to {high}")

    rows = [
        [
            Cell(str(row["fault"])),
            engine_cell(str(row["engine"])),
            count_cell(row["n"]),
            count_cell(row["gone"]),
            seconds_cell(row["held_until_s"]),
            seconds_cell(row["gone_from_s"]),
            *(quantile(row, p) for p in ("p10", "p50", "p90")),
        ]
        for row in laws.to_dict("records")
    ]
    quantiles = ("p10 (s)", "p50 (s)", "p90 (s)")
    columns = ("fault", "engine", "n", "gone", "all held up to (s)", "all gone from (s)", *quantiles)
    note = (
        "Each client whose fault healed asked whether the server still held it: one bit a client, isotonic regression, "
        "exact 95 % intervals. It is when the server gives a client up; no milestone stands for it."
    )
    return [
        Table(
            columns, rows, title="From the fault until given up, by revival", note=note, csv="revival_law.csv"
        )
    ]


def _parts_table(breakdown: pd.DataFrame, by: str, title: str) -> Table | None:
    here = breakdown[(breakdown["dimension"] == by) & (breakdown["milestone"] == "suspected")]
    if here.empty:
        return None
    rows = []
    for row in here.sort_values(["fault", "engine", "value"], kind="stable").to_dict("records"):
        fault, *rest = _measured_row(row)
        rows.append([fault, Cell(cause_name(row["value"]) if by == "cause" else row["value"]), *rest])
    columns = ("fault", "layer" if by == "cause" else by, *_COLUMNS[1:])
    return Table(columns, rows, title=title, csv="breakdown.csv", folded=True)


def _theory_row(law: Mapping[Hashable, Any]) -> list[Cell]:
    mass = law["detected_share"]
    missing = Cell(ABSENT) if math.isnan(mass) else Cell(share(1 - mass), 1 - mass)
    if 0 < mass < 1:
        missing = Cell(share(1 - mass), 1 - mass, detail="mean and max are of the rest")
    return [
        Cell(law["fault"]),
        engine_cell("theory"),
        Cell(ABSENT),
        missing,
        seconds_cell(law["mean_s"]),
        *(
            seconds_cell(law[f"{p}_s"]) if q <= mass else Cell("never", math.inf)
            for p, q in PERCENTILES.items()
        ),
        seconds_cell(law["hi_s"]),
    ]


def _measured_row(row: Mapping[Hashable, Any]) -> list[Cell]:
    n = int(row["n"])
    undetected = n - int(row["detected"])
    why = ", ".join(f"{count(row[name])} {name}" for name in ("censored", "recovered") if row[name])
    return [
        Cell(row["fault"]),
        engine_cell(row["engine"]),
        count_cell(n),
        Cell(count(undetected), undetected, detail=why),
        seconds_cell(row["mean_s"]),
        *(percentile_cell(row[f"{p}_s"], row[f"{p}_lo_s"], row[f"{p}_hi_s"], n) for p in PERCENTILES),
        seconds_cell(row["max_s"]),
    ]
