"""Which layer caught what: of each fault, the share that each layer detected, and what none did."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd
from matplotlib.axes import Axes
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


class _Bar(NamedTuple):
    engine: str
    fault: str
    counts: dict[str, int]

    @property
    def n(self) -> int:
        return sum(self.counts.values())


@styled
def layers(detections: pd.DataFrame, *, caption: str = "") -> Figure:
    """Draw a bar for each fault and engine, cut by the layer that suspected, with what was not detected.

    Args:
        detections: detections.csv; the milestone `suspected` is drawn, without what is not applicable.
        caption: the line under the figure.

    Raises:
        NothingToDraw: no fault took effect.
    """
    bars = list(_bars(detections))
    if not bars:
        raise NothingToDraw("No chart of layers: no fault took effect in this run.")
    figure, (axes,) = new_figure(height=max(7.2, 1.9 + 0.34 * len(bars)))
    position, labels, last = 0.0, [], bars[0].fault
    for bar in bars:
        position += 0.45 if bar.fault != last else 0.0
        _draw(axes, position, bar)
        labels.append((position, f"{bar.fault} · {bar.engine}"))
        position, last = position + 1.0, bar.fault
    axes.set_yticks([at for at, _ in labels], [text for _, text in labels])
    axes.set_ylim(position - 0.4, -0.6)
    axes.set_xlim(0, 1.09)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel("share of the faults that took effect (numbers are counts)")
    axes.grid(axis="y", visible=False)
    kinds = [*(c for c in CAUSE_COLOURS), *in_order(c for bar in bars for c in bar.counts)]
    shown = [kind for kind in in_order(kinds) if any(kind in bar.counts for bar in bars)]
    handles = [Patch(color=_colour(kind), label=_NEITHER.get(kind) or cause_name(kind)) for kind in shown]
    return finish(figure, "Which layer caught what", caption, handles)


def _bars(detections: pd.DataFrame) -> Iterator[_Bar]:
    rows = detections[(detections["milestone"] == "suspected") & (detections["outcome"] != "not_applicable")]
    kind = rows["cause"].where(rows["outcome"] == "detected", rows["outcome"])
    for fault in in_order(rows["fault"]):
        for engine in MEASURED_ENGINES:
            mine = kind[(rows["fault"] == fault) & (rows["engine"] == engine)]
            if len(mine):
                found = mine.value_counts()
                ends = [name for name in _NEITHER if name in found.index]
                names = [*(str(c) for c in found.index if c not in ends), *ends]
                yield _Bar(engine, fault, {name: int(found[name]) for name in names})


def _draw(axes: Axes, position: float, bar: _Bar) -> None:
    left = 0.0
    for kind, number in bar.counts.items():
        width = number / bar.n
        axes.barh(
            position, width, left=left, height=0.82, color=_colour(kind), edgecolor="white", linewidth=1
        )
        if width >= _NARROW:
            dark = sum(to_rgb(_colour(kind))[:2]) < 0.9
            ink = "white" if dark else "#222222"
            middle = left + width / 2
            axes.text(middle, position, f"{number:,}", ha="center", va="center", color=ink, fontsize=11)
        left += width
    axes.text(1.01, position, f"n = {bar.n:,}", va="center", fontsize=11, color="#555555")


def _colour(kind: str) -> str:
    return CAUSE_COLOURS.get(kind, CAUSE_COLOURS[""])
