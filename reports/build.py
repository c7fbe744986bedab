"""The tables of a run and what was decided of them in, the report out: figures/, report.html and report.md.

Draws what it is handed and decides nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from reports.gallery import draw
from reports.page import Headline, Page
from reports.render import render_html, render_markdown
from reports.run_tables import RunTables
from reports.sections.agreement import agreement_section
from reports.sections.cost import cost_section
from reports.sections.ghosts import ghosts_section
from reports.sections.incidents import incidents_section, timelines_section
from reports.sections.latency import latency_section
from reports.sections.layers import layers_section
from reports.sections.losses import losses_section
from reports.sections.overview import facts, overview_section, reading, thresholds_section
from reports.sections.provenance import files_section, provenance_section
from reports.sections.sessions import sessions_section
from reports.sections.soundness import fidelity_section, soundness_section
from reports.sections.suspicions import suspicions_section

__all__ = ["Report", "build_report"]


class Report(NamedTuple):
    """Where the report is."""

    html: Path
    markdown: Path


def build_report(
    tables: RunTables, headline: Headline, agreement: Headline, exit_code: int, *, interactive: bool = False
) -> Report:
    """Write the report of a run into its directory.

    Args:
        tables: the run; agreement.csv and thresholds.csv have been decided.
        headline: the verdict of the whole run.
        agreement: whether the engines agree.
        exit_code: shown beside the verdict.
        interactive: figures of report.html can be zoomed and moved.
    """
    comparisons = tables.table("agreement")
    gallery = draw(tables, comparisons, tables.path / "figures")
    page = Page(
        name=tables.name,
        description=tables.description,
        subtitle=_subtitle(tables),
        headline=headline,
        facts=facts(tables, agreement.status, exit_code),
        reading=reading(tables),
        sections=[
            overview_section(tables, comparisons),
            thresholds_section(tables),
            losses_section(tables, gallery),
            latency_section(tables, gallery),
            agreement_section(comparisons, agreement, gallery),
            layers_section(tables, gallery),
            suspicions_section(tables),
            ghosts_section(tables, gallery),
            *incidents_section(tables),
            sessions_section(tables, gallery),
            cost_section(tables),
            timelines_section(tables, gallery),
            soundness_section(tables, gallery),
            fidelity_section(tables),
            provenance_section(tables),
            files_section(tables),
        ],
    )
    report = Report(tables.path / "report.html", tables.path / "report.md")
    report.html.write_text(render_html(page, interactive=interactive), encoding="utf-8")
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
