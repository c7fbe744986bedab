"""One client's timeline for each fault."""

from __future__ import annotations

from reports.gallery import Gallery
from reports.page import Section, Text
from reports.tables import RunTables

__all__ = ["timelines_section"]


def timelines_section(tables: RunTables, gallery: Gallery) -> Section:
    """Return the timelines."""
    title = "One client of each fault"
    if tables.table("timelines").empty:
        return Section("timelines", title, [Text("No client was traced in this run.", "missing")])
    note = Text(
        "The first client of each fault is traced: its heartbeats are logged one by one. Times are from the fault."
    )
    return Section("timelines", title, [note, *gallery.get("timelines", [])])
