"""Detection-latency curves by fault: what share had been detected by when, three ways on one chart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter

from reports.figures.data import NothingToDraw, in_order, thinned
from reports.numbers import milestone_name
from reports.run_tables import MEASURED_ENGINES
from reports.style import ENGINE_COLOURS, finish, new_figure, no_data, styled

__all__ = ["detection_curves"]

_COLUMNS = {1: 1, 2: 2, 3: 3, 4: 2}


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
        raise NothingToDraw(f"No curve until {milestone_name(milestone)}: the run has no such fault.")
    columns = _COLUMNS.get(len(wanted), 3)
    figure, axes = new_figure(-(-len(wanted) // columns), columns, sharey=True)
    for panel, fault in zip(axes, wanted, strict=False):
        _panel(
            panel, fault, theory[theory["fault"] == fault], measured[measured["fault"] == fault], epsilon_s
        )
    for panel in axes[len(wanted) :]:
        panel.set_visible(False)
    for panel in axes[::columns]:
        panel.set_ylabel("share detected")
    engines = [engine for engine in MEASURED_ENGINES if (measured["engine"] == engine).any()]
    title = f"How long from the fault until {milestone_name(milestone)}"
    return finish(figure, title, caption, _legend(not theory.empty, engines))


def _panel(panel: Axes, fault: str, theory: pd.DataFrame, measured: pd.DataFrame, epsilon_s: float) -> None:
    panel.set_title(fault)
    rises: list[float] = []
    notes: list[str] = []
    levels = [0.0]
    if len(theory):
        law = thinned(theory.sort_values("duration_s", kind="stable"))
        rises += _rise(law["duration_s"].to_numpy(), law["probability"].to_numpy())
        levels.append(float(law["probability"].iloc[-1]))
    curves = {}
    for engine in MEASURED_ENGINES:
        steps = measured[measured["engine"] == engine].sort_values("duration_s", kind="stable")
        if steps.empty:
            continue
        curves[engine] = steps
        rises += _rise(steps["duration_s"].to_numpy(), 1 - steps["survival"].to_numpy())
        share = float(1 - steps["survival"].iloc[-1])
        levels.append(share)
        missing = "" if share > 0.9995 else f", {share:.0%} detected"
        notes.append(f"{engine}: n = {round(steps['at_risk'].max())}{missing}")
    if not len(theory) and not curves:
        no_data(panel, "no such fault took effect")
        return
    left, right = _limits(rises, epsilon_s)
    if len(theory):
        _law(panel, law, left, right)
    for engine, steps in curves.items():
        _steps(panel, engine, thinned(steps), right)
    panel.set_xlim(left, right)
    panel.set_ylim(-0.03, 1.06)
    panel.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    panel.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    panel.set_xlabel("scenario seconds after the fault")
    _note(panel, notes, max(levels))


def _law(panel: Axes, law: pd.DataFrame, left: float, right: float) -> None:
    times, shares = law["duration_s"].to_numpy(), law["probability"].to_numpy()
    times = np.concatenate(([min(left, times[0])], times, [max(right, times[-1])]))
    shares = np.concatenate(([0.0], shares, [shares[-1]]))
    panel.plot(times, shares, color=ENGINE_COLOURS["theory"], linewidth=5, alpha=0.28, zorder=2)
    panel.plot(times, shares, color=ENGINE_COLOURS["theory"], linewidth=1.1, zorder=5)


def _steps(panel: Axes, engine: str, steps: pd.DataFrame, right: float) -> None:
    colour = ENGINE_COLOURS[engine]
    times = np.append(steps["duration_s"].to_numpy(), max(right, steps["duration_s"].iloc[-1]))
    share, low, high = (
        1 - np.append(column, column[-1])
        for column in (steps[name].to_numpy() for name in ("survival", "hi", "lo"))
    )
    real = engine == "real"
    if real:
        panel.fill_between(
            times,
            np.nan_to_num(low, nan=1.0),
            np.nan_to_num(high, nan=1.0),
            step="post",
            color=colour,
            alpha=0.18,
            linewidth=0,
            zorder=1,
        )
    panel.step(
        times,
        share,
        where="post",
        color=colour,
        linewidth=2.4 if real else 1.8,
        linestyle="-" if real else (0, (4, 1.5)),
        zorder=3 if real else 4,
    )


def _rise(times: np.ndarray, shares: np.ndarray) -> list[float]:
    """Return where a curve leaves zero and where it gets to its last level; nothing for a flat one."""
    if not shares.size or shares[-1] <= 0:
        return []
    return [float(times[max(0, int(np.argmax(shares > 0)))]), float(times[np.argmax(shares >= shares[-1])])]


def _limits(rises: list[float], epsilon_s: float) -> tuple[float, float]:
    if not rises:
        return 0.0, 1.0
    low, high = min(rises), max(rises)
    width = max(high - low, 2 * epsilon_s, 0.04 * high, 0.01)
    middle = (low + high) / 2
    left = middle - 0.62 * width
    return (max(left, -0.04 * width) if low < width else left), middle + 0.62 * width


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
    handles: list[Line2D | Patch] = []
    if theory:
        handles.append(Line2D([], [], color="#555555", linewidth=3, label="theory"))
    for engine in engines:
        dash: object = "-" if engine == "real" else (0, (4, 1.5))
        handles.append(Line2D([], [], color=ENGINE_COLOURS[engine], linestyle=dash, label=engine))  # type: ignore[arg-type]
    if "real" in engines:
        handles.append(Patch(color=ENGINE_COLOURS["real"], alpha=0.18, label="real, 95 % interval"))
    return handles
