"""Claimed against measured: for each case the range that was promised and what was seen."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullLocator

from reports.figures.data import NothingToDraw
from reports.numbers import caption_seconds, share
from reports.run_tables import ENGINES
from reports.style import ENGINE_COLOURS, VERDICT_COLOURS, dots, finish, grouped, line_key, new_figure, styled

__all__ = ["claims"]

_LEAST_S = 1e-3  # where the axis begins
_TICKS_S = (1e-3, 1e-2, 0.1, 1, 10, 60, 600, 3600, 86400)
_WORDS = {"pass": "holds", "fail": "does not hold", "unknown": "unknown"}


@styled
def claims(rows: pd.DataFrame, *, caption: str = "") -> Figure:
    """Draw a line for each case and preset: the claim as a grey bar, each engine as its range and median.

    Args:
        rows: one row per case, preset and engine: ``case``, ``preset``, ``claim_lo_s``, ``claim_hi_s``
            (empty: nothing was claimed), ``engine``, ``n``, ``lo_s``, ``p50_s``, ``hi_s`` (of the
            detections: least, median, largest; empty: none), ``detected`` (share), ``recovered`` (how many were
            resumed instead; may be missing), ``verdict``.
        caption: the line under the figure.

    Raises:
        NothingToDraw: no claim was put to the test.
    """
    if rows.empty:
        raise NothingToDraw("No chart of claims: none was put to the test.")
    keys = list(dict.fromkeys(zip(rows["case"], rows["preset"], strict=True)))
    engines = [engine for engine in ENGINES if (rows["engine"] == engine).any()]
    figure, (axes,) = new_figure(height=max(7.2, 1.9 + 0.62 * len(keys)))
    seen = rows[["lo_s", "hi_s", "claim_hi_s"]].to_numpy(dtype=float)
    right = float(np.nanmax(seen)) if np.isfinite(seen).any() else 1.0
    axes.set_xscale("log")
    axes.set_xlim(_LEAST_S / 1.6, right * 2)
    for at, (case, preset) in enumerate(keys):
        mine = rows[(rows["case"] == case) & (rows["preset"] == preset)]
        _claim(axes, at, mine)
        for n, engine in enumerate(engines):
            offset = (n - (len(engines) - 1) / 2) * 0.26
            for row in mine[mine["engine"] == engine].to_dict("records"):
                _seen(axes, at + offset, row)
    axes.set_yticks(range(len(keys)), [f"{case}\n{preset}" for case, preset in keys])
    axes.set_ylim(len(keys) - 0.45, -0.55)
    axes.grid(axis="y", visible=False)
    axes.set_xticks([tick for tick in _TICKS_S if tick <= right * 2])
    axes.xaxis.set_major_formatter(grouped(".4g"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("scenario seconds from the fault to the suspicion (logarithmic)")
    return finish(figure, "What was claimed, and what was measured", caption, _legend(engines, rows))


def _claim(axes: Axes, at: float, rows: pd.DataFrame) -> None:
    low, high = rows["claim_lo_s"].iloc[0], rows["claim_hi_s"].iloc[0]
    if not np.isfinite(high):
        return
    low = max(float(low) if np.isfinite(low) else 0.0, _LEAST_S / 1.6)
    if high / low < 1.06:  # a single number: still to be seen
        low, high = low / 1.04, high * 1.04
    axes.barh(at, high - low, left=low, height=0.82, color="#D5D5D5", zorder=1)


def _seen(axes: Axes, at: float, values: Mapping[Hashable, Any]) -> None:
    colour = ENGINE_COLOURS[values["engine"]]
    low, high, middle = (
        max(values[name], _LEAST_S) if np.isfinite(values[name]) else np.nan
        for name in ("lo_s", "hi_s", "p50_s")
    )
    if np.isfinite(high):
        axes.plot([low, high], [at, at], color=colour, linewidth=4, alpha=0.55, zorder=2)
    if np.isfinite(middle):
        dots(axes, [middle], [at], colour, markeredgecolor="white", markeredgewidth=1)
        text = caption_seconds(values["p50_s"])
    else:
        never = "resumed" if values.get("recovered", 0) > 0 else "never"
        text = never if values["detected"] == 0 else "median not reached"
    if values["detected"] < 1 and values["detected"] > 0:
        text += f", {share(values['detected'])} detected"
    verdict = str(values["verdict"])
    axes.annotate(
        f"{text}: {_WORDS.get(verdict, verdict)}",
        (1.01, at),
        xycoords=("axes fraction", "data"),
        va="center",
        fontsize=11,
        color=VERDICT_COLOURS.get(verdict, "#222222"),
        fontweight="bold" if verdict == "fail" else "normal",
    )


def _legend(engines: list[str], rows: pd.DataFrame) -> list[Line2D | Patch]:
    handles: list[Line2D | Patch] = [Patch(color="#D5D5D5", label="claimed")]
    for engine in engines:
        known = rows.loc[rows["engine"] == engine, "n"].dropna()
        low, high = (int(known.min()), int(known.max())) if len(known) else (0, 0)
        n = "" if not high else f", n = {low:,}" if low == high else f", n = {low:,} to {high:,}"
        what = ": least, median, largest" if engine == engines[0] else ""
        handles.append(line_key(ENGINE_COLOURS[engine], f"{engine}{what}{n}", marker="o", linewidth=4))
    return handles
