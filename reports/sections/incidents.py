"""Incidents of nodes and store: whom each hit, how soon they were back, when the store showed nothing of it.

One client's timeline for each fault.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

from reports.gallery import Gallery
from reports.numbers import ABSENT, seconds, words
from reports.page import Cell, Section, Table, Text
from reports.run_tables import RunTables
from reports.sections.cells import count_cell, engine_cell, seconds_cell, verdict_cell

__all__ = ["incidents_section", "timelines_section"]

_CUTS_CONNECTIONS = ("node_crash", "node_drain")
_MOST_ROWS = 40


def incidents_section(tables: RunTables) -> list[Section]:
    """Return the section; none where nothing happened to nodes or store."""
    found = tables.table("incidents")
    if found.empty:
        return []
    shown = found.sort_values(["at_s", "incident_id", "engine"], kind="stable").head(2 * _MOST_ROWS)
    rows = [_row(row) for row in shown.to_dict("records")]
    table = Table(
        (
            "incident",
            "engine",
            "clients hit",
            "lost",
            "never back",
            "median",
            "p99",
            "last",
            "lease (s)",
            "ghosts gone (s)",
            "store agrees (s)",
            "bound (s)",
            "in time",
            "false suspicions",
        ),
        rows,
        groups=(("", 5), ("back after (s)", 3), ("the mark that it left", 5), ("", 1)),
        csv="incidents.csv",
        note="Times count from the incident. Lease: when a peer first said of a session that its node is dead; a dash "
        "where everybody was back before that. Ghosts: records that name a connection that the incident ended. The "
        "store agrees when every session hit has its living connection’s record, or none if its client is dead or "
        "has left it. In time: the last of both is within the bound, by no more than ε and the width of the store "
        "watch’s look.",
    )
    blocks: list[Table | Text] = [table]
    if len(found) > len(shown):
        blocks.append(Text(f"The first {len(shown)} of {len(found)} rows; incidents.csv has all."))
    return [Section("incidents", "Incidents of nodes and store", blocks)]


def _row(row: Mapping[Hashable, Any]) -> list[Cell]:
    name, kind = words(str(row["incident_id"])), words(str(row["kind"]))
    lasted = "" if math.isnan(row["lasts_s"]) else f" for {seconds(row['lasts_s'])} s"
    when = f"at {seconds(row['at_s'])} s{lasted}"
    detail = [kind if kind != name else "", str(row["node"]), when]
    return [
        Cell(name, detail=", ".join(filter(None, detail))),
        engine_cell(row["engine"]),
        count_cell(row["clients_hit"]),
        count_cell(row["clients_lost"]),
        count_cell(row["clients_away"]),
        *(seconds_cell(row[f"back_{name}_s"]) for name in ("p50", "p99", "max")),
        seconds_cell(row["detected_s"]),
        _gone(row["ghosts_gone_s"], str(row["kind"]) in _CUTS_CONNECTIONS),
        _gone(row["store_agrees_s"], True),
        seconds_cell(row["bound_s"]),
        verdict_cell(row["in_time"]),
        count_cell(row["false_suspicions"]),
    ]


def _gone(value_s: float, expected: bool) -> Cell:
    if math.isnan(value_s):
        return Cell("not by the end", math.inf) if expected else Cell(ABSENT)
    return Cell(seconds(value_s), value_s)


def timelines_section(tables: RunTables, gallery: Gallery) -> Section:
    """Return the timelines."""
    title = "One client of each fault"
    if tables.table("timelines").empty:
        return Section("timelines", title, [Text("No client was traced in this run.", "missing")])
    note = Text(
        "The first client of each fault is traced: its heartbeats are logged one by one. Times are from the fault."
    )
    return Section("timelines", title, [note, *gallery.get("timelines", [])])
