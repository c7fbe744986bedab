"""Which layer caught what: of each fault, the share that each layer detected, and what none did."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from reports.figures.data import NothingToDraw, in_order
from reports.numbers import cause_name
from reports.run_tables import MEASURED_ENGINES
from reports.style import CAUSE_COLOURS, finish, new_figure, styled

__all__ = ["layers"]

_NEITHER = {"recovered": "recovered first", "censored": "not detected by the end"}
_NARROW = 0.055  # a share below this has no room for its number


@styled
def layers(detections: pd.DataFrame, *, caption: str = "") -> Figure:
    """Draw a bar for each fault and engine, cut by the layer that suspected, with what was not detected.

    A fault that one layer caught whole in every engine has no bar; the caption names it.

    Args:
        detections: detections.csv; the milestone `suspected` is drawn, without what is not applicable.
        caption: the line under the figure.

    Raises:
        NothingToDraw: no fault took effect, or of each one layer caught all.
    """
    rows = detections[(detections["milestone"] == "suspected") & (detections["outcome"] != "not_applicable")]
    rows = rows[rows["engine"].isin(MEASURED_ENGINES)]  # theory's rows are plotting positions
    if rows.empty:
        raise NothingToDraw("No chart of layers: no fault took effect in this run.")
    rows = rows.assign(kind=rows["cause"].where(rows["outcome"] == "detected", rows["outcome"]))
    # A server that is not ours does not always say which layer it was: no other one, for all that is known.
    named = rows["kind"].where(rows["kind"] != "")
    kinds_of = {fault: set(kinds.dropna()) for fault, kinds in named.groupby(rows["fault"], sort=False)}
    whole = pd.Series(
        {fault: "".join(kinds) for fault, kinds in kinds_of.items() if len(kinds) <= 1}, dtype=str
    )
    if len(whole):
        caught = "; ".join(
            f"{_NEITHER.get(kind) or cause_name(kind)}: {', '.join(whole.index[whole == kind])}"
            for kind in in_order(whole)
        )
        rows = rows[~rows["fault"].isin(whole.index)]
        if rows.empty:
            which = "in every engine" if named.notna().all() else "in every engine that names one"
            raise NothingToDraw(f"Of each fault one layer caught all, {which} ({caught}).")
        caption = f"Not drawn, for one layer caught all of it: {caught}. {caption}"
    counts = rows.groupby(["fault", "engine", "kind"]).size().unstack(fill_value=0)
    bars = [bar for bar in product(in_order(rows["fault"]), MEASURED_ENGINES) if bar in counts.index]
    causes = [name for name in in_order([*CAUSE_COLOURS, *counts]) if name not in _NEITHER]
    kinds = [name for name in (*causes, *_NEITHER) if name in counts]
    counts = counts.loc[bars][kinds]
    shares = counts.div(counts.sum(axis=1), axis=0)
    at = np.arange(len(bars)) + 0.45 * pd.factorize(counts.index.get_level_values("fault"))[0]
    figure, (axes,) = new_figure(height=max(3.6, 2.2 + 0.4 * len(bars)))
    left = np.zeros(len(bars))
    for name in kinds:
        colour = _colour(name)
        drawn = axes.barh(
            at, shares[name], left=left, height=0.82, color=colour, edgecolor="white", linewidth=1
        )
        labels = [
            f"{n:,}" if share >= _NARROW else "" for n, share in zip(counts[name], shares[name], strict=True)
        ]
        ink = "white" if sum(to_rgb(colour)[:2]) < 0.9 else "#222222"
        axes.bar_label(drawn, labels, label_type="center", color=ink, fontsize=11)
        left += shares[name].to_numpy()
    for y, n in zip(at, counts.sum(axis=1), strict=True):
        axes.text(1.01, y, f"n = {n:,}", va="center", fontsize=11, color="#555555")
    axes.set_yticks(at, [f"{fault} · {engine}" for fault, engine in bars])
    axes.set_ylim(at[-1] + 0.6, -0.6)
    axes.set_xlim(0, 1.09)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel("share of the faults that took effect (numbers are counts)")
    axes.grid(axis="y", visible=False)
    handles = [Patch(color=_colour(name), label=_NEITHER.get(name) or cause_name(name)) for name in kinds]
    return finish(figure, "Which layer caught what", caption, handles)


def _colour(kind: str) -> str:
    return CAUSE_COLOURS.get(kind, CAUSE_COLOURS[""])
