"""The page of claims: claims.csv to claims.html and claims.md, with the figure of each milestone.

From a table of one row per preset, fault, milestone and engine to a cell each, with its verdict. Decides nothing.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from reports.figures.claims import claims
from reports.figures.data import NothingToDraw
from reports.numbers import ABSENT, cause_name, seconds, share
from reports.page import Cell, Table
from reports.run_tables import ENGINES
from reports.style import save

__all__ = ["claims_table", "write_claims_page"]

_TITLES = {
    "suspected": "Detection: from the fault to the verdict",
    "store_cleared": "Clean-up: from the fault until the store shows nothing of it",
    "locked_out": "Lock-out: from the fault until the user is let in again",
}
_TONES: dict[str, Any] = {"holds": "pass", "does not hold": "fail", "unknown": "unknown"}
_FIGURE_VERDICTS = {"holds": "pass", "does not hold": "fail"}


def write_claims_page(rows: pd.DataFrame, folder: Path, notes: list[str]) -> Path:
    """Write claims.csv, claims.html, claims.md and figures into a folder; return the HTML file.

    Args:
        rows: one row a preset, case, milestone and engine, with the columns preset, case, fault, milestone, claimed,
            claim_lo_s, claim_hi_s, engine, n, detected (share), recovered, lo_s, p50_s, hi_s, cause, verdict, reason,
            fidelity, source, run; times are scenario seconds.
        folder: made if it is not there.
        notes: sentences above the tables.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows.to_csv(folder / "claims.csv", index=False)
    tables = [
        claims_table(rows, milestone) for milestone in _TITLES if (rows["milestone"] == milestone).any()
    ]
    pictures = [
        (title, *save(figure, folder / "figures", f"claims_{milestone}"))
        for milestone, title, figure in _figures(rows)
    ]
    environment = Environment(
        loader=PackageLoader("reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    images = [
        (title, "data:image/svg+xml;base64," + base64.b64encode(svg.read_bytes()).decode())
        for title, svg, _ in pictures
    ]
    html = folder / "claims.html"
    text = environment.get_template("claims.html.j2").render(
        notes=notes, tables=tables, images=images, counts=_counts(rows)
    )
    html.write_text(text, encoding="utf-8")
    names = [(title, f"figures/{png.name}") for title, _, png in pictures]
    (folder / "claims.md").write_text("\n".join(_markdown(notes, tables, names)), encoding="utf-8")
    return html


def claims_table(rows: pd.DataFrame, milestone: str) -> Table:
    """Return one milestone's cells as a table: a line for each preset and fault."""
    mine = rows[rows["milestone"] == milestone]
    lines = []
    for (preset, case), cell in mine.groupby(["preset", "case"], sort=False):
        verdict, reason = _overall(cell)
        claimed = str(cell["claimed"].iloc[0]) or ABSENT
        lines.append(
            [
                Cell(str(preset)),
                Cell(str(case)),
                Cell(claimed),
                *(_seen(cell[cell["engine"] == engine]) for engine in ENGINES),
                Cell(verdict, detail=reason, tone=_TONES.get(verdict, "")),
                Cell(_layer(cell)),
                Cell(_last(cell, "fidelity") or ABSENT),
            ]
        )
    return Table(
        ["preset", "case", "claimed", *ENGINES, "verdict", "by", "how the real fault was made"],
        lines,
        title=_TITLES[milestone],
        csv="claims.csv",
        note="Scenario seconds: least to largest (median).",
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
    span = f"{seconds(row['lo_s'])} to {seconds(row['hi_s'])}"
    if row["hi_s"] - row["lo_s"] < 0.005:
        span = seconds(row["hi_s"])
    middle = f"median {seconds(row['p50_s'])}" if math.isfinite(row["p50_s"]) else ""
    part = f"{share(row['detected'])} of them" if row["detected"] < 1 else ""
    return Cell(f"{span} s", value=float(row["hi_s"]), detail=", ".join(x for x in (middle, part) if x))


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


def _figures(rows: pd.DataFrame) -> Iterator[tuple[str, str, Figure]]:
    for milestone, title in _TITLES.items():
        mine = rows[(rows["milestone"] == milestone) & (rows["claimed"] != "")].copy()
        mine = mine[mine["n"] > 0]
        mine["verdict"] = mine["verdict"].map(lambda v: _FIGURE_VERDICTS.get(v, "unknown"))
        mine["n"] = mine["n"].where(mine["engine"] != "theory").astype(float)  # a law has no sample
        try:
            figure = claims(mine, caption="Grey: what was claimed.")
        except NothingToDraw:
            continue
        span = title.partition(": ")[2]
        figure.axes[0].set_xlabel(f"scenario seconds {span} (logarithmic)")
        yield milestone, title, figure


def _counts(rows: pd.DataFrame) -> dict[str, int]:
    verdicts = [_overall(cell)[0] for _, cell in rows.groupby(["preset", "fault", "milestone"], sort=False)]
    return {name: verdicts.count(name) for name in ("holds", "does not hold", "unknown")}


def _markdown(notes: list[str], tables: list[Table], pictures: list[tuple[str, str]]) -> Iterator[str]:
    yield "# Claims, put to the test\n"
    yield from (f"{note}\n" for note in notes)
    for table in tables:
        yield f"## {table.title}\n"
        yield "| " + " | ".join(table.columns) + " |"
        yield "|" + " --- |" * len(table.columns)
        for row in table.rows:
            cells = (f"{c.text} ({c.detail})" if c.detail else c.text for c in row)
            yield ("| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |")
        yield f"\n{table.note}\n"
    for title, path in pictures:
        yield f"![{title}]({path})\n"
