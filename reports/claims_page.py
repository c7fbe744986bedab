"""The page of claims: claims.csv to claims.html and claims.md, with the figure of each milestone.

From a table of one row per preset, fault, milestone and engine to a cell each, with its verdict. Decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from reports.figures.claims import claims
from reports.figures.data import NothingToDraw
from reports.numbers import ABSENT, caption_seconds, cause_name, seconds, share, time_span
from reports.page import Block, Cell, Headline, Page, Picture, Section, Table, Tone
from reports.render import render_html, render_markdown
from reports.run_tables import ENGINES
from reports.style import save

__all__ = ["claims_table", "write_claims_page"]

_TITLES = {
    "suspected": "Detection: from the fault to the verdict",
    "store_cleared": "Clean-up: from the fault until the store shows nothing of it",
    "locked_out": "Lock-out: from the fault until the user is let in again",
}
_TONES: dict[str, Tone] = {"holds": "pass", "does not hold": "fail", "unknown": "unknown"}
_READING = (
    (
        "holds",
        "every fault that was seen, and the least and the largest time of them, lies within the claim, widened by the "
        "run's own ε; each preset was run once, with every fault in one mix",
    ),
    ("verdict", "reality's where there is one, else the simulation's, else theory's"),
    (
        "process crash",
        "a killed process is not silent: its kernel sends FIN, so it is seen at once where close detection acts on "
        "it; a send into a dead connection succeeds until TCP gives up",
    ),
)


def write_claims_page(rows: pd.DataFrame, folder: Path) -> Path:
    """Write claims.csv, claims.html, claims.md and figures into a folder; return the HTML file.

    Args:
        rows: one row a preset, case, milestone and engine, with the columns preset, case, fault, milestone, claimed,
            claim_lo_s, claim_hi_s, engine, n, detected (share), recovered, lo_s, p50_s, hi_s, cause, verdict, reason,
            fidelity, source, run; times are scenario seconds.
        folder: made if it is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows.to_csv(folder / "claims.csv", index=False)
    verdicts = [_overall(cell)[0] for _, cell in rows.groupby(["preset", "fault", "milestone"], sort=False)]
    page = Page(
        name="Claims, put to the test",
        description="",
        subtitle="What documents promise of their systems, beside theory, simulation and reality.",
        headline=_headline(verdicts),
        facts=[Cell(str(verdicts.count(name)), detail=name, tone=tone) for name, tone in _TONES.items()],
        reading=_READING,
        sections=[
            Section(milestone, title, [claims_table(rows, milestone), *_pictures(rows, milestone, folder)])
            for milestone, title in _TITLES.items()
            if (rows["milestone"] == milestone).any()
        ],
    )
    html = folder / "claims.html"
    html.write_text(render_html(page), encoding="utf-8")
    (folder / "claims.md").write_text(render_markdown(page, folder), encoding="utf-8")
    return html


def _headline(verdicts: list[str]) -> Headline:
    wrong, unknown = verdicts.count("does not hold"), verdicts.count("unknown")
    held = verdicts.count("holds")
    # A claim that does not hold is what was to be found out, and no failure of the test.
    return Headline(
        "finding", f"Of {held + wrong + unknown} claims: {held} hold, {wrong} do not, {unknown} not known"
    )


def claims_table(rows: pd.DataFrame, milestone: str) -> Table:
    """Return one milestone's cells as a table: a line for each preset and fault."""
    mine = rows[rows["milestone"] == milestone]
    engines = [engine for engine in ENGINES if (mine["engine"] == engine).any()]
    how = " Below a case: how the real fault was made." if "real" in engines else ""
    lines = []
    for (preset, case), cell in mine.groupby(["preset", "case"], sort=False):
        verdict, reason = _overall(cell)
        claimed = str(cell["claimed"].iloc[0]) or ABSENT
        lines.append(
            [
                Cell(str(preset)),
                Cell(str(case), detail=_last(cell, "fidelity")),
                Cell(claimed),
                *(_seen(cell[cell["engine"] == engine]) for engine in engines),
                Cell(verdict, detail=reason, tone=_TONES.get(verdict, "")),
                Cell(_layer(cell)),
            ]
        )
    return Table(
        ["preset", "case", "claimed", *engines, "verdict", "by"],
        lines,
        csv="claims.csv",
        note=f"Scenario seconds: least to largest (median).{how}",
    )


def _overall(cell: pd.DataFrame) -> tuple[str, str]:
    """Reality's verdict where it is known, else the simulation's, else theory's."""
    for engine in reversed(ENGINES):
        one = cell[cell["engine"] == engine]
        if len(one) and one["verdict"].iloc[0] != "unknown":
            said = "" if engine == "real" or one["verdict"].iloc[0] == "no claim" else f"{engine} says"
            reason = "; ".join(part for part in (str(one["reason"].iloc[0]), said) if part)
            return str(one["verdict"].iloc[0]), reason
    return "unknown", str(cell["reason"].iloc[-1])


def _seen(one: pd.DataFrame) -> Cell:
    if one.empty:
        return Cell(ABSENT, detail="not run")
    row = one.iloc[0]
    if not row["n"]:
        return Cell(ABSENT, detail=str(row["reason"]))
    if not row["detected"]:
        return Cell("resumed" if row["recovered"] else "never", value=math.inf)
    span = time_span(row["lo_s"], row["hi_s"])
    if row["hi_s"] - row["lo_s"] < 0.005:
        span = caption_seconds(row["hi_s"])
    middle = f"median {seconds(row['p50_s'])}" if math.isfinite(row["p50_s"]) else ""
    part = f"{share(row['detected'])} of them" if row["detected"] < 1 else ""
    return Cell(span, value=float(row["hi_s"]), detail=", ".join(x for x in (middle, part) if x))


def _layer(cell: pd.DataFrame) -> str:
    cause = _last(cell, "cause")
    return cause_name(cause) if cause else ABSENT


def _last(cell: pd.DataFrame, column: str) -> str:
    """The value of the engine nearest to reality that has one."""
    for engine in reversed(ENGINES):
        one = cell[(cell["engine"] == engine) & (cell[column] != "")]
        if len(one):
            return str(one[column].iloc[0])
    return ""


def _pictures(rows: pd.DataFrame, milestone: str, folder: Path) -> Iterator[Block]:
    mine = rows[(rows["milestone"] == milestone) & (rows["claimed"] != "") & (rows["n"] > 0)].copy()
    mine["verdict"] = mine["verdict"].map(lambda verdict: _TONES.get(verdict, "unknown"))
    mine["n"] = mine["n"].where(mine["engine"] != "theory").astype(float)  # a law has no sample
    try:
        figure = claims(mine, caption="Grey: what was claimed.")
    except NothingToDraw:
        return
    span = _TITLES[milestone].partition(": ")[2]
    figure.axes[0].set_xlabel(f"scenario seconds {span} (logarithmic)")
    yield Picture(milestone, _TITLES[milestone], *save(figure, folder / "figures", f"claims_{milestone}"))
