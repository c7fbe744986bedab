"""Detection-latency curves by fault: what share had been detected by when, three ways on one chart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from reports.figures.data import (
    DASHES,
    NothingToDraw,
    engine_stairs,
    engines_in,
    fault_panels,
    in_order,
    limits,
    rise,
    since_fault,
    thinned,
)
from reports.numbers import NBSP, share, time_span, words
from reports.style import ENGINE_COLOURS, finish, line_key, no_data, share_axis, styled

__all__ = ["Curve", "curve_of", "detection_curves", "step_in_words", "step_of"]


_LEAST_RISE_S = 0.05
_LEAST_RISE = 0.01  # of its time


def step_in_words(
    law_curves: pd.DataFrame,
    survival: pd.DataFrame,
    fault: str,
    *,
    milestone: str = "suspected",
    epsilon_s: float = 0.0,
) -> str:
    """Say in a sentence what a fault's curves would show if they were bare steps; empty: they are worth a panel.

    Curves are steps where all of them rise within ε, or within a time too short to be seen beside its own length.
    The arguments are those of `detection_curves`.
    """
    law = law_curves[(law_curves["milestone"] == milestone) & (law_curves["fault"] == fault)]
    seen = survival[(survival["milestone"] == milestone) & (survival["fault"] == fault)]
    curves = {one: curve_of(seen[seen["engine"] == one]) for one in reversed(engines_in(seen))}
    if len(law):
        law = law.sort_values("duration_s", kind="stable")
        curves["theory"] = Curve(law["duration_s"], law["probability"])
    return step_of(fault, curves, milestone=milestone, epsilon_s=epsilon_s)


class Curve(NamedTuple):
    """Times, the share that was detected by each, and of how many faults; a law has no number of faults."""

    times_s: pd.Series[float]
    shares: pd.Series[float]
    n: float = math.nan


def curve_of(survival: pd.DataFrame) -> Curve:
    """Return the curve of rows of survival.csv of one engine, fault and milestone."""
    steps = survival.sort_values("duration_s", kind="stable")
    return Curve(steps["duration_s"], 1 - steps["survival"], float(steps["at_risk"].max()))


def step_of(
    fault: str, curves: Mapping[str, Curve], *, milestone: str = "suspected", epsilon_s: float = 0.0
) -> str:
    """Say what `step_in_words` says, of curves by their labels: engines or runs."""
    rises = {label: rise(curve.times_s, curve.shares) for label, curve in curves.items()}
    ends = [at_s for rising in rises.values() for at_s in rising]
    if not curves or (
        ends and max(ends) - min(ends) > max(epsilon_s, _LEAST_RISE_S, _LEAST_RISE * max(ends))
    ):
        return ""
    said = []
    for label, (_, shares, n) in curves.items():
        least, most = rises[label] or (math.inf, math.inf)
        level = float(shares.iloc[-1])
        of = "" if level > 0.9995 or not rises[label] else f" for {share(level)}"
        number = "" if math.isnan(n) else f", n{NBSP}={NBSP}{n:,.0f}"
        said.append(f"{label} {time_span(least, most)}{of}{number}")
    what = f"{words(milestone)} at one moment" if ends else f"never {words(milestone)}"
    return f"{fault}: {what}, so there is no curve to draw ({'; '.join(said)})."


@styled
def detection_curves(
    law_curves: pd.DataFrame,
    survival: pd.DataFrame,
    *,
    faults: Sequence[str] | None = None,
    milestone: str = "suspected",
    epsilon_s: float = 0.0,
    caption: str = "",
) -> Figure:
    """Draw one panel a fault: theory as a line, the simulated engine as steps, the real one as steps with a band.

    Args:
        law_curves: law_curves.csv.
        survival: survival.csv; the share detected is 1 − survival, the band its 95 % bounds.
        faults: which, at most six to stay readable; default: all in the tables.
        milestone: of the fault.
        epsilon_s: ε of the run; no panel is zoomed in so far that this would look large.
        caption: the line under the figure.

    Raises:
        NothingToDraw: neither table has a curve of these faults.
    """
    theory = law_curves[law_curves["milestone"] == milestone]
    measured = survival[survival["milestone"] == milestone]
    wanted = in_order(faults if faults is not None else [*theory["fault"], *measured["fault"]])
    known = {*theory["fault"], *measured["fault"]}
    if not any(fault in known for fault in wanted):
        raise NothingToDraw(f"No curve until {words(milestone)}: the run has no such fault.")
    figure, panels = fault_panels(len(wanted), "share detected")
    for panel, fault in zip(panels, wanted, strict=True):
        laws, seen = theory[theory["fault"] == fault], measured[measured["fault"] == fault]
        _panel(panel, fault, laws, seen, epsilon_s)
    title = f"How long from the fault until {words(milestone)}"
    return finish(figure, title, caption, _legend(not theory.empty, engines_in(measured)))


def _panel(panel: Axes, fault: str, theory: pd.DataFrame, measured: pd.DataFrame, epsilon_s: float) -> None:
    panel.set_title(fault)
    rises: list[float] = []
    notes: list[str] = []
    levels = [0.0]
    if len(theory):
        law = thinned(theory.sort_values("duration_s", kind="stable"))
        rises += rise(law["duration_s"], law["probability"])
        levels.append(float(law["probability"].iloc[-1]))
    curves = {}
    for engine in engines_in(measured):
        steps = measured[measured["engine"] == engine].sort_values("duration_s", kind="stable")
        curves[engine] = steps
        rises += rise(steps["duration_s"], 1 - steps["survival"])
        share = float(1 - steps["survival"].iloc[-1])
        levels.append(share)
        missing = "" if share > 0.9995 else f", {share:.0%} detected"
        notes.append(f"{engine}: n = {round(steps['at_risk'].max())}{missing}")
    if not len(theory) and not curves:
        no_data(panel, "no such fault took effect")
        return
    left, right = limits(rises, 2 * epsilon_s)
    if len(theory):
        _law(panel, law, left, right)
    for engine, steps in curves.items():
        steps = thinned(steps)
        times_s, shares = steps["duration_s"], [1 - steps[name] for name in ("survival", "hi", "lo")]
        until_s = max(right, times_s.iloc[-1])
        engine_stairs(panel, engine, times_s, shares, until_s, ENGINE_COLOURS[engine])
    share_axis(panel)
    since_fault(panel, left, right)
    _note(panel, notes, max(levels))


def _law(panel: Axes, law: pd.DataFrame, left: float, right: float) -> None:
    times, shares = law["duration_s"].to_numpy(), law["probability"].to_numpy()
    times = np.concatenate(([min(left, times[0])], times, [max(right, times[-1])]))
    shares = np.concatenate(([0.0], shares, [shares[-1]]))
    panel.plot(times, shares, color=ENGINE_COLOURS["theory"], linewidth=5, alpha=0.28, zorder=2)
    panel.plot(times, shares, color=ENGINE_COLOURS["theory"], linewidth=1.1, zorder=5)


def _note(panel: Axes, notes: list[str], level: float) -> None:
    """Write n where the curves are not: below a curve that has risen, above one that stays low."""
    low = level > 0.6
    if level <= 0:
        notes = [*notes, "no detection"]
    panel.text(
        0.975 if low else 0.03,
        0.09 if low else 0.94,
        "\n".join(notes),
        transform=panel.transAxes,
        ha="right" if low else "left",
        va="bottom" if low else "top",
        fontsize=11,
        color="#555555",
        zorder=6,
    )


def _legend(theory: bool, engines: list[str]) -> list[Line2D | Patch]:
    handles: list[Line2D | Patch] = [line_key("#555555", "theory")] if theory else []
    for engine in engines:
        handles.append(line_key(ENGINE_COLOURS[engine], engine, linestyle=DASHES[engine], linewidth=None))
    if "real" in engines:
        handles.append(Patch(color=ENGINE_COLOURS["real"], alpha=0.18, label="real, 95 % interval"))
    return handles
