"""What became of sessions: who came back to theirs, who was turned away, records that fit nobody; storms."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import Any

from reports.gallery import Gallery
from reports.numbers import ABSENT, count, words
from reports.page import Block, Cell, Section, Table, Text
from reports.run_tables import ENGINES, RunTables
from reports.sections.cells import share_cell

__all__ = ["sessions_section"]

_FIGURES = {
    "resumed": "resumed: came back and were let in",
    "stale_session_errors": "told “session unknown”, of attempts to connect",
    "presence_flicker": "flicker: announced offline, soon online again",
    "records_of_dead_sessions": "dead, and still in the store at the end",
    "records_left_after_verdict": "the same, though the gateway had decided",
    "live_sessions_without_record": "alive at the end without a record",
    "records_of_nobody": "records at the end that belong to nobody",
    "ledger_inconsistencies": "memory, Redis and ledger differ after the run",
}


def sessions_section(tables: RunTables, gallery: Gallery) -> Section:
    """Return the shares with their exact intervals and counts, and the storm where there was one."""
    title = "What became of sessions"
    found = tables.table("session_quality")
    storm = gallery.get("storm", [])
    if not storm and len(tables.table("reconnects")):
        calm = "No storm: never within ten seconds did a fifth of the clients lose their connections or come back."
        storm = [Text(calm)]
    if found.empty:
        why = "What became of sessions is not known (no session_quality.csv)."
        return Section("sessions", title, [Text(why, "missing"), *storm])
    if not found["denominator"].any():
        why = "There was nothing to count: no client came back, and no store was watched at the end."
        return Section("sessions", title, [Text(why, "missing"), *storm])
    engines = [engine for engine in ENGINES if (found["engine"] == engine).any()]
    order = {name: n for n, name in enumerate((*_FIGURES, "", *tables.faults))}
    ordered = found.sort_values(["figure", "fault"], key=lambda names: names.map(order), kind="stable")
    rows = []
    for (figure, fault), group in ordered.groupby(["figure", "fault"], sort=False):
        mine = {str(row["engine"]): row for row in group.to_dict("records")}
        remarks = [f"{e}: {mine[e]['note']}" for e in engines if e in mine and _remarkable(mine[e])]
        rows.append(
            [
                Cell(_FIGURES.get(str(figure), words(str(figure)))),
                Cell(str(fault) or "all"),
                *(_share(mine[engine]) if engine in mine else Cell(ABSENT) for engine in engines),
                Cell("; ".join(remarks)),
            ]
        )
    blocks: list[Block] = [
        Table(
            ("what", "fault", *engines, "remark"),
            rows,
            csv="session_quality.csv",
            note="Below each share its count and its exact 95 % interval (Clopper and Pearson 1934). A session is "
            "resumed where its client, connected once before, is let in again. Flicker is counted for each "
            "watcher (presence_flaps.csv). The two “at the end” compare counts at the store’s last sample: one "
            "may hide the other.",
        )
    ]
    return Section("sessions", title, [*blocks, *storm])


def _share(row: Mapping[Hashable, Any]) -> Cell:
    if not row["denominator"]:
        return Cell(ABSENT, detail="nothing to count")
    cell = share_cell(row["share"], row["lo"], row["hi"])
    return replace(cell, detail=f"{count(row['count'])} of {count(row['denominator'])}; {cell.detail}")


def _remarkable(row: Mapping[Hashable, Any]) -> bool:
    return bool(row["note"]) and row["count"] > 0
