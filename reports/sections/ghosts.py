"""Ghosts: how long the store showed clients who were dead, and the live sessions over the run."""

from __future__ import annotations

from reports.gallery import Gallery
from reports.page import Block, Cell, Section, Table, Text
from reports.run_tables import RunTables
from reports.sections.cells import by_fault, count_cell, engine_cell, seconds_cell

__all__ = ["ghosts_section"]


def ghosts_section(tables: RunTables, gallery: Gallery) -> Section:
    """Return the chart over the run and the ghost time of each fault."""
    blocks: list[Block] = [*gallery.get("live", [])]
    if tables.table("population")["store_sessions"].notna().any():
        blocks.append(
            Text(
                "Sessions in the store also count new ones of dead users who logged in from another device: "
                "then the store may hold more than clients alive and ghosts together."
            )
        )
    counted = tables.table("counted")
    if len(counted):
        last = counted.iloc[-1]
        blocks.append(
            Text(
                f"The server itself told of {last['connections']:g} connections at the end, beside "
                f"{last['live_clients']} live clients; it counted {counted['ghosts'].max():g} beyond them at the most. "
                "A count says how many, never which."
            )
        )
    ghosts = tables.table("ghosts")
    if ghosts.empty:
        watched = tables.table("population")["ghosts"].notna().any()
        why = "No ghost was seen." if watched else "Ghosts are not known: nobody watched a store."
        blocks.append(Text(why, "plain" if watched else "missing"))
        return Section("ghosts", "Ghosts and live sessions", blocks)
    rows = []
    ghosts = by_fault(ghosts, tables)
    for (fault, engine), group in ghosts.groupby(["fault", "engine"], sort=False):
        left = int((group["outcome"] == "censored").sum())
        rows.append(
            [
                Cell(str(fault)),
                engine_cell(str(engine)),
                count_cell(len(group)),
                seconds_cell(float(group["ghost_s"].sum())),
                seconds_cell(float(group["ghost_s"].quantile(0.5, interpolation="lower"))),
                seconds_cell(float(group["ghost_s"].max())),
                count_cell(left),
            ]
        )
    columns = ("fault", "engine", "ghosts", "ghost-seconds", "median (s)", "longest (s)", "left at the end")
    note = (
        "From the fault until the store is cleared, the client is back, or the run ends (“left at the end”)."
    )
    blocks.append(Table(columns, rows, title="Ghost time", note=note, csv="ghosts.csv"))
    return Section("ghosts", "Ghosts and live sessions", blocks)
