"""Do the engines agree? Each difference of a percentile in units of its tolerance."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from reports.figures.data import NothingToDraw, in_order
from reports.numbers import words
from reports.style import ENGINE_COLOURS, GREEN, PURPLE, dot_key, dots, finish, line_key, new_figure, styled

__all__ = ["agreement_chart"]

_FIGURES = ("p50", "p95", "p99")
_PAIRS = {
    ("simulated", "theory"): ENGINE_COLOURS["simulated"],
    ("real", "theory"): ENGINE_COLOURS["real"],
    ("real", "simulated"): PURPLE,
}
_FAR = 2.9  # beyond this many tolerances a dot sits at the edge, as an arrow
_MOST_ROWS = 20


@styled
def agreement_chart(agreement: pd.DataFrame, *, caption: str = "") -> Figure:
    """Draw a panel for each percentile: rows are faults and milestones, the green band is the tolerance.

    A filled dot is decided (a cross: it fails), a hollow one is not; lines are 95 % intervals.

    Args:
        agreement: agreement.csv. With many rows only the milestone `suspected` is drawn.
        caption: the line under the figure.

    Raises:
        NothingToDraw: no percentile could be compared.
    """
    rows = agreement[agreement["figure"].isin(_FIGURES) & agreement["difference_s"].notna()]
    if rows.empty:
        raise NothingToDraw("No chart of agreement: no percentile of this run could be compared.")
    if rows.groupby(["fault", "milestone"]).ngroups > _MOST_ROWS:
        rows = rows[rows["milestone"] == "suspected"]
        caption = f"Milestone suspected only; agreement.csv has the rest. {caption}"
    cases = in_order(rows["fault"] + "\n" + rows["milestone"].map(words))
    figure, panels = new_figure(1, 3, sharey=True, height=max(7.2, 2.2 + 0.42 * len(cases)))
    for panel, name in zip(panels, _FIGURES, strict=True):
        panel.axvspan(-1, 1, color=GREEN, alpha=0.13, zorder=0)
        panel.axvline(0, color="#888888", linewidth=1, zorder=1)
        for row in rows[rows["figure"] == name].to_dict("records"):
            at = cases.index(f"{row['fault']}\n{words(row['milestone'])}")
            _dot(panel, at, row)
        panel.set_title(name)
        panel.set_xlim(-3.15, 3.15)
        panel.set_xticks([-3, -2, -1, 0, 1, 2, 3])
        panel.set_ylim(len(cases) - 0.45, -0.55)
        panel.set_yticks(range(len(cases)), cases)
        panel.set_xlabel("difference (±1: the most that is allowed)")
    pairs = [pair for pair in _PAIRS if ((rows["left"] == pair[0]) & (rows["right"] == pair[1])).any()]
    return finish(figure, "Do theory, simulation and reality agree?", caption, _legend(pairs))


def _dot(panel: Axes, at: int, row: Mapping[Hashable, Any]) -> None:
    pair = (row["left"], row["right"])
    tolerance, apart = row["tolerance_s"], row["difference_s"]
    if pair not in _PAIRS or not tolerance > 0:
        return
    colour, y = _PAIRS[pair], at + 0.24 * (list(_PAIRS).index(pair) - 1)
    low, high = (
        np.nan_to_num(row[name] / tolerance, nan=edge) for name, edge in (("lo_s", -99.0), ("hi_s", 99.0))
    )
    panel.plot(np.clip([low, high], -3.15, 3.15), [y, y], color=colour, linewidth=1.6, alpha=0.65, zorder=2)
    x = apart / tolerance
    marker = {"pass": "o", "fail": "X"}.get(row["verdict"], "o")
    if abs(x) > _FAR:
        x, marker = float(np.sign(x)) * _FAR, ">" if x > 0 else "<"
    dots(
        panel,
        [x],
        [y],
        colour,
        marker,
        markersize=9 if marker != "o" else 7,
        markerfacecolor="white" if row["verdict"] == "unknown" else colour,
        markeredgewidth=1.4,
    )


def _legend(pairs: list[tuple[str, str]]) -> list[Line2D | Patch]:
    return [
        *(line_key(_PAIRS[pair], " − ".join(pair)) for pair in pairs),
        dot_key("#555555", "pass"),
        dot_key("#555555", "fail", "X"),
        dot_key("#555555", "undecided", markerfacecolor="white"),
        Patch(color=GREEN, alpha=0.13, label="tolerance"),
    ]
