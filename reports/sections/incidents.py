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
from reports.sections.cells import count_cell, engine_cell, missing, seconds_cell, table_of, verdict_cell

__all__ = ["incidents_section", "timelines_section"]

_MOST_ROWS = 40


def incidents_section(tables: RunTables) -> list[Section]:
    """Return the section; none where nothing happened to nodes or store."""
    found = tables.table("incidents")
    if found.empty:
        return []
    shown = found.sort_values(["at_s", "incident_id", "engine"], kind="stable").head(2 * _MOST_ROWS)
    table = table_of(
        shown,
        {
            "incident": _incident,
            "engine": ("engine", engine_cell),
            "clients hit": ("clients_hit", count_cell),
            "lost": ("clients_lost", count_cell),
            "never back": ("clients_away", count_cell),
            "median": ("back_p50_s", seconds_cell),
            "p99": ("back_p99_s", seconds_cell),
            "last": ("back_max_s", seconds_cell),
            "lease (s)": ("detected_s", seconds_cell),
            "ghosts gone (s)": lambda row: _gone(row["ghosts_gone_s"], bool(row["cuts_connections"])),
            "store agrees (s)": lambda row: _gone(row["store_agrees_s"], True),
            "bound (s)": ("bound_s", seconds_cell),
            "in time": ("in_time", verdict_cell),
            "false suspicions": ("false_suspicions", count_cell),
        },
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


def _incident(row: Mapping[Hashable, Any]) -> Cell:
    name, kind = words(str(row["incident_id"])), words(str(row["kind"]))
    lasted = "" if math.isnan(row["lasts_s"]) else f" for {seconds(row['lasts_s'])} s"
    detail = [kind if kind != name else "", str(row["node"]), f"at {seconds(row['at_s'])} s{lasted}"]
    return Cell(name, detail=", ".join(filter(None, detail)))


def _gone(value_s: float, expected: bool) -> Cell:
    if math.isnan(value_s):
        return Cell("not by the end", math.inf) if expected else Cell(ABSENT)
    return Cell(seconds(value_s), value_s)


def timelines_section(tables: RunTables, gallery: Gallery) -> Section:
    """Return the timelines."""
    title = "One client of each fault"
    if tables.table("timelines").empty:
        return missing("timelines", title, "No client was traced in this run.")
    note = Text(
        "One client of each fault, the same in every engine. Of those whose heartbeats are logged one by one it is the "
        "one that the fault met most nearly as long after a ping in every engine. Times are from the fault."
    )
    return Section("timelines", title, [note, *gallery.get("timelines", [])])
