"""The verdict of a run for programs and jobs: a JSON object, JUnit XML, and Markdown for the page of a job.

From the tables and the summary of a run directory to text. Decides nothing: the verdicts are the judge's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

from reports.render import markdown_table
from reports.run_tables import RunTables

__all__ = ["as_junit", "as_markdown", "as_verdict"]

_SAID = ("name", "status", "verdict", "headline", "exit_code", "sound", "unsound_reasons", "agreement")


def as_verdict(tables: RunTables) -> dict[str, Any]:
    """Return what a program asks of a run: verdict, exit code, thresholds (one row each), soundness, agreement.

    ``verdict`` is ``pass``, ``fail`` or ``unknown``; ``sound`` is null where no real clients ran.
    """
    thresholds = tables.table("thresholds")
    return {
        "run": str(tables.path),
        **{key: tables.summary.get(key) for key in _SAID},
        "reasons": tables.summary.get("verdict_reasons", []),
        "thresholds": thresholds.astype(object).where(thresholds.notna(), None).to_dict("records"),
        "report": str(tables.path / "report.html"),
    }


_SIGNS = {"pass": "✅", "fail": "❌", "unknown": "❔", "not_asked": "➖"}


def as_markdown(tables: RunTables) -> str:
    """Return the verdict as a section of Markdown in GitHub's style: what was asked, what came out, and why."""
    said = tables.summary
    sign = _SIGNS.get(str(said.get("verdict")), "❔")
    lines = [f"### {sign} flatline {said.get('name', tables.path.name)}: {said.get('headline', '')}", ""]
    if tables.sound is False:
        lines += [f"> The run is unsound: {'; '.join(tables.unsound_reasons)}", ""]
    thresholds = tables.table("thresholds")
    if not thresholds.empty:
        rows = [
            (_SIGNS.get(str(row.verdict), "❔"), str(row.expression), str(row.reason))
            for row in thresholds.itertuples()
        ]
        lines += [markdown_table(("", "threshold", "what was seen"), rows), ""]
    agreement = [
        (title, _OUTCOMES[outcome], why)
        for group, title, outcome, why in _cases(tables)
        if group == "agreement"
    ]
    if agreement:
        rows = [(sign, title, why) for title, sign, why in agreement]
        lines += [
            "<details><summary>Do the engines agree?</summary>",
            "",
            markdown_table(("", "fault", "why"), rows),
        ]
        lines += ["", "</details>", ""]
    return "\n".join(lines) + f"Report: `{tables.path / 'report.html'}`\n\n"


_OUTCOMES = {"": "✅", "failure": "❌", "skipped": "❔", "error": "❔"}


def as_junit(tables: RunTables) -> str:
    """Return the run as a JUnit test suite: a case for soundness, one a threshold, one a fault and pair of engines.

    What was missed or disagrees is a failure; an unsound run is an error, and so is an undecided threshold, for that is
    no pass. Comparisons that could not be decided are skipped.
    """
    name = str(tables.summary.get("name", tables.path.name))
    suite = ElementTree.Element("testsuite", name=f"flatline {name}")
    counts = {"failure": 0, "error": 0, "skipped": 0}
    cases = list(_cases(tables))
    for group, title, outcome, reason in cases:
        case = ElementTree.SubElement(suite, "testcase", classname=f"{name}.{group}", name=title)
        if outcome:
            counts[outcome] += 1
            ElementTree.SubElement(case, outcome, message=reason)
    suite.set("tests", str(len(cases)))
    for outcome, plural in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        suite.set(plural, str(counts[outcome]))
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _cases(tables: RunTables) -> Iterator[tuple[str, str, str, str]]:
    if tables.sound is not None:
        reasons = "; ".join(tables.unsound_reasons)
        yield "soundness", "the run is sound", "" if tables.sound else "error", reasons
    for row in tables.table("thresholds").to_dict("records"):
        outcome = {"pass": "", "fail": "failure"}.get(str(row["verdict"]), "error")
        yield "thresholds", str(row["expression"]), outcome, str(row["reason"])
    agreement = tables.table("agreement")
    for (fault, left, right), rows in agreement.groupby(["fault", "left", "right"], sort=False):
        title = f"{fault}: {left} and {right}"
        failed = rows[rows["verdict"] == "fail"]
        if not failed.empty:
            said = "; ".join(f"{r.milestone} {r.figure}: {r.reason}" for r in failed.itertuples())
            yield "agreement", title, "failure", said
        elif (rows["verdict"] == "pass").any():
            yield "agreement", title, "", ""
        else:
            why = "the run is unsound" if tables.sound is False else "too little was seen to compare"
            yield "agreement", title, "skipped", why
