"""The tables of a run and what was decided of them in, the report out: figures/, report.html and report.md.

Draws what it is handed and decides nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from reports import sections
from reports.gallery import draw
from reports.page import Headline, Page
from reports.render import render_html, render_markdown
from reports.run_tables import RunTables

__all__ = ["Report", "build_report"]


class Report(NamedTuple):
    """Where the report is."""

    html: Path
    markdown: Path


def build_report(tables: RunTables, headline: Headline, agreement: Headline, exit_code: int) -> Report:
    """Write the report of a run into its directory.

    Args:
        tables: the run; agreement.csv and thresholds.csv have been decided.
        headline: the verdict of the whole run.
        agreement: whether the engines agree.
        exit_code: shown beside the verdict.
    """
    comparisons = tables.table("agreement")
    gallery = draw(tables, comparisons, tables.path / "figures")
    page = Page(
        name=tables.name,
        description=tables.description,
        subtitle=_subtitle(tables),
        headline=headline,
        facts=sections.facts(tables, agreement.status, exit_code),
        reading=sections.reading(tables),
        sections=[
            sections.overview_section(tables, comparisons),
            sections.thresholds_section(tables),
            sections.latency_section(tables, gallery),
            sections.agreement_section(comparisons, agreement, gallery),
            sections.layers_section(tables, gallery),
            sections.suspicions_section(tables),
            sections.ghosts_section(tables, gallery),
            *sections.incidents_section(tables),
            sections.sessions_section(tables, gallery),
            sections.cost_section(tables),
            sections.timelines_section(tables, gallery),
            sections.soundness_section(tables, gallery),
            sections.fidelity_section(tables),
            sections.provenance_section(tables),
            sections.files_section(tables),
        ],
    )
    report = Report(tables.path / "report.html", tables.path / "report.md")
    report.html.write_text(render_html(page), encoding="utf-8")
    report.markdown.write_text(render_markdown(page, tables.path), encoding="utf-8")
    return report


def _subtitle(tables: RunTables) -> str:
    engines = " and ".join(tables.engines) or "no engine"
    parts = [f"Engines: {engines}"]
    for key, text in (("seed", "seed {:g}"), ("speedup", "speedup {:g}")):
        if (value := tables.number(key)) is not None:
            parts.append(text.format(value))
    if started := tables.provenance.get("started"):
        parts.append(f"started {started}")
    return " · ".join(parts)
