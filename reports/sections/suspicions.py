"""False suspicions: how many healthy clients were taken for dead, with exact intervals, and Chen's figures."""

from __future__ import annotations

import math
from dataclasses import replace

from reports.numbers import ABSENT, rate, seconds
from reports.page import Block, Cell, Section
from reports.run_tables import RunTables
from reports.sections.cells import Row, count_cell, engine_cell, missing, rate_cell, table_of

__all__ = ["suspicions_section"]


def suspicions_section(tables: RunTables) -> Section:
    """Return the section."""
    title = "False suspicions"
    found, accuracy = tables.table("false_suspicions"), tables.table("accuracy")
    if found.empty:
        why = "no engine measured them (no false_suspicions.csv)"
        return missing("suspicions", title, f"False suspicions are not known: {why}.")
    blocks: list[Block] = [
        table_of(
            found,
            {
                "engine": ("engine", engine_cell),
                "healthy clients": ("healthy_clients", count_cell),
                "client-days": ("client_days", rate_cell),
                "false suspicions": ("count", count_cell),
                "per client-day": _rate,
            },
            note="The interval is the exact 95 % one of a Poisson rate (Garwood 1936): with none seen in a short "
            "run its upper end is far above zero, and that is all that the run can promise. Client-days are "
            "healthy connected time in scenario time.",
            csv="false_suspicions.csv",
        )
    ]
    if len(accuracy):
        blocks.append(
            table_of(
                accuracy,
                {
                    "engine": ("engine", engine_cell),
                    "mistakes": ("count", count_cell),
                    "time from one to the next (T_MR, s)": ("mistake_recurrence_s", _or_none),
                    "how long one lasts (T_M, s)": ("mistake_duration_s", _or_none),
                    "time in which the verdict is right (P_A)": ("query_accuracy", _accuracy),
                },
                title="Accuracy after Chen, Toueg and Aguilera",
                note="Means over healthy connected time. A mistake is a healthy client that is held for dead.",
                csv="accuracy.csv",
            )
        )
    return Section("suspicions", title, blocks)


def _rate(row: Row) -> Cell:
    interval = f"{rate(row['rate_lo'])} to {rate(row['rate_hi'])}"
    return replace(rate_cell(row["rate_per_client_day"]), detail=interval)


def _accuracy(value: float) -> Cell:
    return Cell(ABSENT if math.isnan(value) else f"{value:.6f}", value)


def _or_none(value_s: float) -> Cell:
    return Cell("no mistake") if math.isnan(value_s) else Cell(seconds(value_s), value_s)
