"""What ran, on what, and where the data are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from reports.numbers import count, size_bytes, words
from reports.page import Block, Cell, Section, Table, Text
from reports.run_tables import TABLES, RunTables
from reports.sections.cells import Columns, count_cell, missing, table_of

__all__ = ["files_section", "provenance_section"]

_FILES = {
    "scenario.yaml": "the scenario as it ran, every default written out",
    "plan.json": "the fault plan that both engines ran",
    "run.json": "versions, machine, seed",
    "events.jsonl": "everything that every witness logged, in time order",
    **{f"{table.name}.csv": f"one row per {table.row}" for table in TABLES.values()},
}

_SHOWN_ELSEWHERE = ("fidelity", "notes")


def provenance_section(tables: RunTables) -> Section:
    """Return what ran.json says, flat."""
    title = "What ran"
    blocks: list[Block] = []
    if tables.negative_control:
        blocks.append(
            Text(
                "Negative control: the gateway ran another policy than the scenario’s, so this report must be red.",
                "warning",
            )
        )
    said = {key: value for key, value in tables.provenance.items() if key not in _SHOWN_ELSEWHERE}
    blocks += [Text(str(note)) for note in tables.summary.get("notes") or ()]
    rows = [[Cell(name), Cell(value)] for name, value in _flat(said)]
    counts = tables.summary.get("counts")
    if isinstance(counts, dict):
        rows += [
            [Cell(words(str(name))), Cell(count(value) if isinstance(value, int | float) else str(value))]
            for name, value in counts.items()
        ]
    if not said:
        text = "The run does not say what ran, where and when (no run.json); one under `flatline serve` never does."
        blocks.append(Text(text, "missing"))
    if rows:
        blocks.append(Table(("what", "value"), rows))
    reasons = tables.table("not_applicable")
    if len(reasons):
        columns: Columns = {
            "engine": ("engine", Cell),
            "fault": ("fault", Cell),
            "milestone": ("milestone", lambda name: Cell(words(name))),
            "why": ("reason", Cell),
            "faults": ("count", count_cell),
        }
        csv = "not_applicable.csv"
        blocks.append(table_of(reasons, columns, title="Not applicable", csv=csv, folded=True))
    return Section("provenance", title, blocks)


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in content.items():
        name = f"{prefix}{words(str(key).removesuffix('_bytes'))}"
        if value is None:
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}: ")
        elif isinstance(value, list):
            yield name, ", ".join(map(str, value))
        elif str(key).endswith("_bytes") and isinstance(value, int | float):
            yield name, size_bytes(value)
        else:
            yield name, f"{value:g}" if isinstance(value, float) else str(value)


def files_section(tables: RunTables) -> Section:
    """Return links to the data beside the report; links work as long as it stays in its run directory."""
    rows = [
        [Cell(name), Cell(what), Cell(_size(tables, name))]
        for name, what in _FILES.items()
        if (tables.path / name).is_file()
    ]
    note = (
        "Full precision; docs/reference-tables.md of the project explains every column. Beside them, summary.json has "
        "the verdict and the counts."
    )
    if not rows:
        return missing("files", "Data", "There are no data beside this report.")
    return Section("files", "Data", [Table(("file", "what", "size"), rows, note=note)])


def _size(tables: RunTables, name: str) -> str:
    kibi = (tables.path / name).stat().st_size / 1024
    return f"{kibi:,.0f}\u00a0KiB" if kibi >= 1 else "under\u00a01\u00a0KiB"
