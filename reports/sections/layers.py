"""Which layer caught what, how fast, and what the kernel knew of the socket by then."""

from __future__ import annotations

import math
from collections.abc import Hashable

import pandas as pd

from reports.gallery import Gallery
from reports.numbers import cause_name, share
from reports.page import Block, Cell, Section, Table, Text
from reports.run_tables import ENGINES, RunTables
from reports.sections.cells import count_cell, engine_cell, seconds_cell, share_cell

__all__ = ["layers_section"]

_UNKNOWN = (math.nan, math.nan, math.nan)


def layers_section(tables: RunTables, gallery: Gallery) -> Section:
    """Return the charts, the table of layers and the one of TCP_INFO."""
    blocks: list[Block] = [*gallery.get("layers", [])]
    causes = tables.table("detections_by_layer")
    if len(causes):
        order = {name: n for n, name in enumerate((*tables.faults, *ENGINES))}
        causes = causes.sort_values(["fault", "engine"], key=lambda names: names.map(order), kind="stable")
        reached = _reached(tables.table("incidence"))
        totals = causes.groupby(["engine", "fault"])["count"].transform("sum")
        rows = [
            [
                Cell(row["fault"]),
                engine_cell(row["engine"]),
                Cell(cause_name(row["cause"])),
                count_cell(row["count"]),
                Cell(share(row["count"] / total), row["count"] / total),
                share_cell(*reached.get((row["engine"], row["fault"], row["cause"]), _UNKNOWN)),
                seconds_cell(row["median_s"]),
            ]
            for row, total in zip(causes.to_dict("records"), totals, strict=True)
        ]
        columns = ("fault", "engine", "layer", "caught", "of the detected", "of all in the end", "median (s)")
        note = (
            "“Of all in the end” is the Aalen–Johansen estimate with its 95 % interval: layers compete with each "
            "other and with recovery, and the run’s end censors (incidence.csv has the curves)."
        )
        blocks.append(Table(columns, rows, title="Layers", note=note, csv="detections_by_layer.csv"))
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
    rows = [
        [
            Cell(row["fault"]),
            engine_cell(row["engine"]),
            count_cell(row["n"]),
            Cell(share(row["unacked_share"]), row["unacked_share"]),
            Cell(share(row["retransmitted_share"]), row["retransmitted_share"]),
        ]
        for row in info.to_dict("records")
    ]
    return Table(
        ("fault", "engine", "suspicions", "unacknowledged data", "retransmitted"),
        rows,
        title="TCP_INFO at the suspicion",
        note="Real silence leaves data unacknowledged and retransmitted; a client that merely does not answer "
        "still acknowledges.",
        csv="tcp_info.csv",
    )
