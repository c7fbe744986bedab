"""Do the engines agree? The verdict, what fails and why, a matrix, and every comparison."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import pandas as pd

from reports.gallery import Gallery
from reports.numbers import ABSENT, count, share, signed_seconds, words
from reports.page import Block, Cell, Headline, Section, Table, Text
from reports.run_tables import PERCENTILES
from reports.sections.cells import mark, missing, seconds_cell, verdict_cell

__all__ = ["agreement_section"]

_PAIRS = (("real", "theory"), ("simulated", "theory"), ("real", "simulated"))
_FIGURES = {
    **{name: name for name in PERCENTILES},
    "range": "all in range",
    "share": "share detected",
    "shape": "whole curve",
    "count": "losses",
}
"""By its name in agreement.csv, what is compared."""
_SHARES = ("share", "shape")
_MOST_FAILURES = 30


def agreement_section(table: pd.DataFrame, verdict: Headline, gallery: Gallery) -> Section:
    """Return the section; ``table`` is agreement.csv."""
    title = "Do theory, simulation and reality agree?"
    if table.empty:
        why = "there is no law (laws.csv), or no engine that measures"
        return missing("agreement", title, f"Nothing could be compared: {why}.")
    blocks: list[Block] = [
        Text(
            f"{mark(verdict.status)} {verdict.status}: {verdict.sentence}.",
            "warning" if verdict.status == "fail" else "plain",
        )
    ]
    failed = table[table["verdict"] == "fail"]
    if len(failed):
        blocks.append(_list(failed.head(_MOST_FAILURES), f"Outside the tolerance: {count(len(failed))}"))
    blocks += [*gallery.get("agreement", []), *_matrices(table)]
    blocks.append(
        Text(
            "A percentile agrees if the difference is within the tolerance and its 95 % interval reaches no "
            "further than the tolerance to either side. It disagrees if it is outside and chance does not explain "
            "it, at a level that all comparisons share: in a run in which everything agrees, any red percentile "
            "or share at all comes up at most once in a hundred. “All in range” asks whether every single detection "
            "lies in the law’s range, give or take ε (real) or a round trip (simulated); “share detected” whether "
            "as many were detected as the law says, “whole curve” whether the whole distribution is the law’s, "
            "“losses” whether healthy clients lost as many connections."
        )
    )
    blocks.append(_list(table, "Every comparison", folded=True))
    return Section("agreement", title, blocks)


def _matrices(table: pd.DataFrame) -> Iterator[Table]:
    """A table for each pair of engines; folded are those after the first in which nothing disagrees."""
    pairs = [p for p in _PAIRS if ((table["left"] == p[0]) & (table["right"] == p[1])).any()]
    for n, pair in enumerate(pairs):
        mine = table[(table["left"] == pair[0]) & (table["right"] == pair[1])]
        figures = [figure for figure in _FIGURES if (mine["figure"] == figure).any()]
        cells = {
            (row["fault"], row["milestone"], row["figure"]): _cell(row) for row in mine.to_dict("records")
        }
        cases = dict.fromkeys(zip(mine["fault"], mine["milestone"], strict=True))
        rows = [
            [
                Cell(fault),
                Cell(words(milestone)),
                *(cells.get((fault, milestone, figure), Cell("")) for figure in figures),
            ]
            for fault, milestone in cases
        ]
        yield Table(
            ("fault", "until", *(_FIGURES[figure] for figure in figures)),
            rows,
            title=" − ".join(pair),
            note="Differences in seconds; for shares and curves in percentage points, for losses in connections.",
            csv="agreement.csv",
            folded=n > 0 and not (mine["verdict"] == "fail").any(),
        )


def _cell(row: Mapping[Hashable, Any]) -> Cell:
    verdict, apart = row["verdict"], row["difference_s"]
    text = mark(verdict)
    if not math.isnan(apart):
        points = f"{apart * 100:+.1f}".replace("-", "−") if apart else "0"
        number = f"{apart:+.0f}".replace("-", "−") if row["figure"] == "count" else signed_seconds(apart)
        text += f" {points if row['figure'] in _SHARES else number}"
    return Cell(text, apart if not math.isnan(apart) else -math.inf, tone=verdict)


def _list(table: pd.DataFrame, title: str, folded: bool = False) -> Table:
    columns = (
        "verdict",
        "fault",
        "until",
        "compared",
        "engines",
        "values",
        "difference",
        "tolerance",
        "reason",
    )
    return Table(
        columns,
        [list(_row(row)) for row in table.to_dict("records")],
        title=title,
        csv="agreement.csv",
        note="Seconds; for shares and curves percent.",
        folded=folded,
    )


def _row(row: Mapping[Hashable, Any]) -> Iterator[Cell]:
    yield verdict_cell(row["verdict"])
    yield Cell(row["fault"])
    yield Cell(words(row["milestone"]))
    yield Cell(_FIGURES[row["figure"]])
    yield Cell(f"{row['left']} − {row['right']}")
    left, right, difference, tolerance = (
        _value(row["figure"], row[name], signed=name == "difference_s")
        for name in ("left_s", "right_s", "difference_s", "tolerance_s")
    )
    yield Cell("" if left.text == right.text == ABSENT else f"{left.text} − {right.text}")
    yield difference
    yield tolerance
    yield Cell(row["reason"])


def _value(figure: str, value: float, signed: bool = False) -> Cell:
    if math.isnan(value):
        return Cell(ABSENT)
    if figure == "count":
        return Cell(f"{value:.4g}".replace("-", "−"), value)
    if figure in _SHARES:
        return Cell(share(value) if value >= 0 else f"−{share(-value)}", value)
    return Cell(signed_seconds(value), value) if signed else seconds_cell(value)
