"""A run directory in, its report out. Open this file first: `build_report` numbers the steps.

Reads tables and JSON, writes agreement.csv, figures/, report.html, report.md and the verdict in
summary.json. It can be done again at any time.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from reports import sections
from reports.agreement import AgreementVerdict, compare, judge
from reports.gallery import draw
from reports.observed import Slack
from reports.page import Page
from reports.render import render_html, render_markdown
from reports.run_tables import RunTables, load_run
from reports.verdict import RunVerdict, conclude

__all__ = ["ReportResult", "build_report"]


class ReportResult(NamedTuple):
    """Verdicts of the report and where it is."""

    verdict: RunVerdict
    agreement: AgreementVerdict
    html: Path
    markdown: Path


def build_report(
    run_path: Path,
    *,
    tolerances: Mapping[str, float],
    slack: Slack | None = None,
    exit_code: int | None = None,
) -> ReportResult:
    """Build the report of a run directory.

    1. Read the tables; what is missing is empty.
    2. Compare the engines, write agreement.csv.
    3. Weigh thresholds, agreement and soundness into one verdict.
    4. Draw the figures.
    5. Write report.html and report.md, both from the same page.
    6. Add ``verdict``, ``verdict_reasons``, ``agreement`` and ``exit_code`` to summary.json.

    Args:
        run_path: the run directory.
        tolerances: shares of the law's value for ``p50``, ``p95``, ``p99``.
        slack: how far off the engines' times may be; default: ``epsilon_s`` and ``round_trip_s`` of the
            summary.
        exit_code: shown instead of the verdict's own, by a command that knows better (it was interrupted).

    Raises:
        TablesError: the directory or one of its files cannot be read.
        ValueError: a tolerance is missing or negative.
    """
    tables = load_run(run_path)
    comparisons = compare(tables, tolerances, slack)
    comparisons.to_csv(run_path / "agreement.csv", index=False)
    agreement = judge(comparisons, sound=tables.sound, reasons=tables.unsound_reasons)
    verdict = conclude(tables, agreement)
    if exit_code is not None:
        verdict = verdict._replace(exit_code=exit_code)
    _write_verdict(run_path, tables.summary, verdict, agreement)

    gallery = draw(tables, comparisons, run_path / "figures")
    page = Page(
        name=tables.name,
        description=tables.description,
        subtitle=_subtitle(tables),
        verdict=verdict,
        agreement=agreement,
        facts=sections.facts(tables, verdict, agreement.verdict),
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
    html, markdown = run_path / "report.html", run_path / "report.md"
    html.write_text(render_html(page), encoding="utf-8")
    markdown.write_text(render_markdown(page, run_path), encoding="utf-8")
    return ReportResult(verdict, agreement, html, markdown)


def _subtitle(tables: RunTables) -> str:
    engines = " and ".join(tables.engines) or "no engine"
    parts = [f"Engines: {engines}"]
    for key, text in (("seed", "seed {:g}"), ("speedup", "speedup {:g}")):
        if (value := tables.number(key)) is not None:
            parts.append(text.format(value))
    if started := tables.provenance.get("started"):
        parts.append(f"started {started}")
    return " · ".join(parts)


def _write_verdict(
    run_path: Path, summary: Mapping[str, Any], verdict: RunVerdict, agreement: AgreementVerdict
) -> None:
    content = {
        **summary,
        "verdict": verdict.verdict,
        "headline": verdict.headline,
        "verdict_reasons": list(verdict.reasons),
        "agreement": agreement._asdict(),
        "exit_code": verdict.exit_code,
    }
    draft = run_path / "summary.json.tmp"
    draft.write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2))
    draft.replace(run_path / "summary.json")
