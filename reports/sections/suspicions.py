"""False suspicions: how many healthy clients were taken for dead, with exact intervals, and Chen's figures."""

from __future__ import annotations

import math

from reports.numbers import ABSENT, rate, seconds
from reports.page import Block, Cell, Section, Table, Text
from reports.run_tables import RunTables
from reports.sections.cells import count_cell, engine_cell

__all__ = ["suspicions_section"]


def suspicions_section(tables: RunTables) -> Section:
    """Return the section."""
    title = "False suspicions"
    found = tables.table("false_suspicions")
    if found.empty:
        why = "no engine measured them (no false_suspicions.csv)"
        return Section("suspicions", title, [Text(f"False suspicions are not known: {why}.", "missing")])
    rows = [
        [
            engine_cell(row["engine"]),
            count_cell(row["healthy_clients"]),
            Cell(rate(row["client_days"]), row["client_days"]),
            count_cell(row["count"]),
            Cell(
                rate(row["rate_per_client_day"]),
                row["rate_per_client_day"],
                detail=f"{rate(row['rate_lo'])} to {rate(row['rate_hi'])}",
            ),
        ]
        for row in found.to_dict("records")
    ]
    blocks: list[Block] = [
        Table(
            ("engine", "healthy clients", "client-days", "false suspicions", "per client-day"),
            rows,
            note="The interval is the exact 95 % one of a Poisson rate (Garwood 1936): with none seen in a short "
            "run its upper end is far above zero, and that is all that the run can promise. Client-days are "
            "healthy connected time in scenario time.",
            csv="false_suspicions.csv",
        )
    ]
    accuracy = tables.table("accuracy")
    if len(accuracy):
        blocks.append(
            Table(
                ("engine", "mistakes", "T_MR (s)", "T_M (s)", "P_A"),
                [
                    [
                        engine_cell(row["engine"]),
                        count_cell(row["count"]),
                        _or_none(row["mistake_recurrence_s"]),
                        _or_none(row["mistake_duration_s"]),
                        _accuracy(row["query_accuracy"]),
                    ]
                    for row in accuracy.to_dict("records")
                ],
                title="Accuracy after Chen, Toueg and Aguilera",
                note="T_MR: mean time from one mistake to the next; T_M: how long one lasts; P_A: the share of "
                "healthy time in which the client was rightly trusted.",
                csv="accuracy.csv",
            )
        )
    return Section("suspicions", title, blocks)


def _accuracy(value: float) -> Cell:
    return Cell(ABSENT if math.isnan(value) else f"{value:.6f}", value)


def _or_none(value_s: float) -> Cell:
    return Cell("no mistake") if math.isnan(value_s) else Cell(seconds(value_s), value_s)
