"""Before and after: the detection curves of two runs or more, one panel a fault, and what became of the medians."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.figures.data import NothingToDraw, fault_panels, limits, rise, since_fault, stairs, thinned
from reports.numbers import NBSP, caption_seconds, count, seconds, signed_seconds, words
from reports.style import (
    BLUE,
    ENGINE_COLOURS,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PURPLE,
    VERDICT_COLOURS,
    VERMILION,
    finish,
    line_key,
    no_data,
    share_axis,
    styled,
)

__all__ = ["before_after"]

_BASELINE = MUTED
_CANDIDATES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE)
_LONGEST_LABEL = 34
_NOTE = 0.17  # of the panel's height from 0 to 1, for a line of text
_LAW = 1.1  # of a line's width
_WORDS = {"pass": "no slower", "fail": "slower", "unknown": "undecided"}


@styled
def before_after(
    survival: pd.DataFrame,
    changes: pd.DataFrame,
    *,
    labels: Sequence[str],
    faults: Sequence[str],
    law_curves: pd.DataFrame | None = None,
    milestone: str = "suspected",
    caption: str = "",
) -> Figure:
    """Draw the share detected over time: the baseline in grey, the others in colour, each with its 95 % band.

    Theory's curves are thin and black, where every run that has the fault has a law of it.

    Args:
        survival: survival.csv of every run, one engine, with a column ``run``.
        changes: rows with ``candidate``, ``fault``, ``milestone``, ``p50_before_s``, ``p50_after_s``,
            ``p50_difference_s``, ``p50_lo_s``, ``p50_hi_s``, ``verdict``, ``reason``: written beside the curves.
        labels: the runs in order, the baseline first; six at most.
        faults: a panel each, six at most to stay readable.
        law_curves: law_curves.csv of every run with a column ``run``; None: no theory.
        milestone: of the fault.
        caption: the line under the figure.

    Raises:
        NothingToDraw: no run has a curve of these faults.
        ValueError: more runs than there are colours.
    """
    if len(labels) > 1 + len(_CANDIDATES):
        raise ValueError(f"{len(labels)} runs; allowed in one figure: {1 + len(_CANDIDATES)}")
    curves = survival[(survival["milestone"] == milestone) & survival["fault"].isin(list(faults))]
    if curves.empty:
        raise NothingToDraw(f"No before and after: no run has a curve until {words(milestone)}.")
    colours = dict(zip(labels, (_BASELINE, *_CANDIDATES), strict=False))
    laws = curves.iloc[:0] if law_curves is None else law_curves[law_curves["milestone"] == milestone]
    drawn = False
    figure, panels = fault_panels(len(faults), "share detected")
    for panel, fault in zip(panels, faults, strict=True):
        mine = curves[curves["fault"] == fault]
        moved = changes[(changes["fault"] == fault) & (changes["milestone"] == milestone)]
        law = laws[laws["fault"] == fault]
        if not set(mine["run"]) <= set(law["run"]):
            law = law.iloc[:0]
        drawn |= not law.empty
        _panel(panel, fault, mine, law, moved, colours)
    title = f"Before and after: from the fault until {words(milestone)}"
    handles = [
        line_key(colour, _short(label, n), linestyle=_dash(n))
        for n, (label, colour) in enumerate(colours.items())
    ]
    if drawn:
        handles.append(line_key(ENGINE_COLOURS["theory"], "theory of each", linewidth=_LAW))
    return finish(figure, title, caption, handles)


def _panel(
    panel: Axes,
    fault: str,
    curves: pd.DataFrame,
    laws: pd.DataFrame,
    moved: pd.DataFrame,
    colours: dict[str, str],
) -> None:
    panel.set_title(f"{fault}{_sizes(curves, colours)}")
    share_axis(panel)
    ends: list[float] = []
    for n, (label, colour) in enumerate(colours.items()):
        steps = curves[curves["run"] == label].sort_values("duration_s", kind="stable")
        if steps.empty:
            continue
        ends += rise(steps["duration_s"], 1 - steps["survival"])
        _curve(panel, thinned(steps), colour, n)
        law = laws[laws["run"] == label].sort_values("duration_s", kind="stable")
        if len(law):
            ends += rise(law["duration_s"], law["probability"])
            _law(panel, thinned(law))
    if curves.empty:
        no_data(panel, "no such fault took effect")
        return
    since_fault(panel, *limits(ends))
    _notes(panel, moved, colours)


def _curve(panel: Axes, steps: pd.DataFrame, colour: str, n: int) -> None:
    times_s = steps["duration_s"]
    stairs(
        panel,
        times_s,
        [1 - steps[name] for name in ("survival", "hi", "lo")],
        10 * times_s.iloc[-1] + 1,
        colour,
        {"alpha": 0.15, "zorder": 1 + n},
        zorder=4 + n,
        linestyle=_dash(n),
        linewidth=3.2 if n == 0 else 2.0,
    )


def _law(panel: Axes, law: pd.DataFrame) -> None:
    times_s, shares = law["duration_s"].to_numpy(), law["probability"].to_numpy()
    times_s = np.concatenate(([min(0.0, times_s[0])], times_s, [10 * times_s[-1] + 1]))
    shares = np.concatenate(([0.0], shares, [shares[-1]]))
    panel.plot(times_s, shares, color=ENGINE_COLOURS["theory"], linewidth=_LAW, zorder=12)


def _notes(panel: Axes, moved: pd.DataFrame, colours: dict[str, str]) -> None:
    """Write what became of the median above the curves, one line a run."""
    rows = moved.to_dict("records")
    panel.set_ylim(-0.03, 1.06 + _NOTE * len(rows))
    panel.set_yticks([0, 0.25, 0.5, 0.75, 1])
    for n, row in enumerate(rows):
        said = "faster" if str(row["reason"]).startswith("faster") else _WORDS[str(row["verdict"])]
        text = f"p50 {_change(row)}: {said}"
        only = VERDICT_COLOURS.get(str(row["verdict"]), INK)
        panel.text(
            0.015,
            1.03 + _NOTE * (len(rows) - n - 0.5),
            text,
            transform=panel.get_yaxis_transform(),
            va="center",
            fontsize=11,
            color=colours.get(str(row["candidate"]), INK) if len(rows) > 1 else only,
            fontweight="bold" if row["verdict"] == "fail" else "normal",
        )


def _change(row: Mapping[Hashable, Any]) -> str:
    if not np.isfinite(row["p50_difference_s"]):
        return f"{seconds(row['p50_before_s'])} → {caption_seconds(row['p50_after_s'])}"
    text = f"{signed_seconds(row['p50_difference_s'])}{NBSP}s"
    if np.isfinite(row["p50_lo_s"]) and np.isfinite(row["p50_hi_s"]):
        text += f" ({signed_seconds(row['p50_lo_s'])} to {signed_seconds(row['p50_hi_s'])})"
    return text


def _sizes(curves: pd.DataFrame, labels: Iterable[str]) -> str:
    """Return how many faults each run has, once where they are the same."""
    most = curves.groupby("run")["at_risk"].max()
    sizes = dict.fromkeys(count(most[label]) for label in labels if label in most.index)
    return f"  (n = {' / '.join(sizes)})" if sizes else ""


def _dash(n: int) -> tuple[float, Sequence[float]]:
    return ((0, ()), (0, ()), (0, (5, 1.5)), (0, (2, 1.2)))[n if n < 2 else 2 + n % 2]


def _short(label: str, n: int) -> str:
    text = label if len(label) <= _LONGEST_LABEL else "…" + label[1 - _LONGEST_LABEL :]
    return f"{text} (baseline)" if n == 0 else text
