"""Which layer caught what, how fast, and what the kernel knew of the socket by then."""

from __future__ import annotations

import math
from collections.abc import Hashable

import pandas as pd

from reports.gallery import Gallery
from reports.numbers import cause_name
from reports.page import Block, Cell, Section, Text
from reports.run_tables import RunTables
from reports.sections.cells import (
    Columns,
    by_fault,
    count_cell,
    engine_cell,
    seconds_cell,
    share_cell,
    table_of,
)

__all__ = ["layers_section"]

_UNKNOWN = (math.nan, math.nan, math.nan)


def layers_section(tables: RunTables, gallery: Gallery) -> Section:
    """Return the charts, the table of layers and the one of TCP_INFO."""
    blocks: list[Block] = [*gallery.get("layers", [])]
    causes = tables.table("detections_by_layer")
    if len(causes):
        causes = by_fault(causes, tables)
        reached = _reached(tables.table("incidence"))
        totals = causes.groupby(["engine", "fault"])["count"].transform("sum")
        causes = causes.assign(share=causes["count"] / totals)
        note = (
            "The share of all faults is estimated with its 95 % interval (Aalen–Johansen): layers compete with each "
            "other and with recovery, and a run may end before a fault is noticed (incidence.csv has the curves)."
        )
        columns: Columns = {
            "fault": ("fault", Cell),
            "engine": ("engine", engine_cell),
            "layer": ("cause", lambda cause: Cell(cause_name(cause))),
            "caught": ("count", count_cell),
            "of the detected": ("share", share_cell),
            "of all faults, by the run’s end": lambda row: share_cell(
                *reached.get((row["engine"], row["fault"], row["cause"]), _UNKNOWN)
            ),
            "median (s)": ("median_s", seconds_cell),
        }
        blocks.append(table_of(causes, columns, title="Layers", note=note, csv="detections_by_layer.csv"))
    elif not blocks:
        blocks.append(Text("No layer caught anything: no fault was detected.", "missing"))
    blocks.append(_tcp_info(tables))
    return Section("layers", "Which layer caught what", blocks)


def _reached(incidence: pd.DataFrame) -> dict[Hashable, tuple[float, float, float]]:
    """The last point of each layer's curve: share, lower and upper bound, by engine, fault and cause."""
    last = incidence.groupby(["engine", "fault", "cause"], sort=False).tail(1)
    return {
        (row["engine"], row["fault"], row["cause"]): (row["incidence"], row["lo"], row["hi"])
        for row in last.to_dict("records")
    }


def _tcp_info(tables: RunTables) -> Block:
    info = tables.table("tcp_info")
    if info.empty:
        return Text(
            "What the kernel knew of the sockets (TCP_INFO at the suspicion) was not logged.", "missing"
        )
    return table_of(
        by_fault(info, tables),
        {
            "fault": ("fault", Cell),
            "engine": ("engine", engine_cell),
            "suspicions": ("n", count_cell),
            "unacknowledged data": ("unacked_share", share_cell),
            "retransmitted": ("retransmitted_share", share_cell),
        },
        title="TCP_INFO at the suspicion",
        note="Real silence leaves data unacknowledged and retransmitted; a client that merely does not answer "
        "still acknowledges.",
        csv="tcp_info.csv",
    )
