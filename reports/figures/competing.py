"""Who was first, by when: of each fault that several layers compete for, the share that each had caught."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from reports.figures.data import NothingToDraw, in_order, thinned
from reports.numbers import cause_name
from reports.style import CAUSE_COLOURS, finish, new_figure, styled

__all__ = ["competing", "contested"]

_MOST = 6
_DASHES = {"simulated": (0, (4, 1.5)), "real": "-"}


def contested(incidence: pd.DataFrame) -> list[str]:
    """Faults that more than one layer caught, or that some recovered from, in the table's order."""
    causes = incidence.groupby("fault", sort=False)["cause"].nunique()
    return in_order(causes.index[causes > 1])


@styled
def competing(incidence: pd.DataFrame, *, caption: str = "") -> Figure:
    """Draw a panel for each contested fault (six at most): a curve for each layer and for recovery.

    Args:
        incidence: incidence.csv; the band is the real engine's 95 % bounds.
        caption: the line under the figure.

    Raises:
        NothingToDraw: no fault was caught by more than one layer, and nothing recovered.
    """
    faults = contested(incidence)[:_MOST]
    if not faults:
        raise NothingToDraw("No chart of competing layers: of each fault one layer caught all.")
    columns = min(3, len(faults)) if len(faults) != 4 else 2
    figure, axes = new_figure(-(-len(faults) // columns), columns, sharey=True)
    for panel, fault in zip(axes, faults, strict=False):
        _panel(panel, fault, incidence[incidence["fault"] == fault])
    for panel in axes[len(faults) :]:
        panel.set_visible(False)
    for panel in axes[::columns]:
        panel.set_ylabel("share of all faults")
    shown = incidence[incidence["fault"].isin(faults)]
    handles = [
        Line2D([], [], color=_colour(cause), linewidth=3, label=_name(cause))
        for cause in in_order(shown["cause"])
    ]
    handles += [
        Line2D([], [], color="#555555", linestyle=dash, label=engine)  # type: ignore[arg-type]
        for engine, dash in _DASHES.items()
        if (shown["engine"] == engine).any()
    ]
    return finish(figure, "Which layer was first, and by when", caption, handles)


def _panel(panel: Axes, fault: str, rows: pd.DataFrame) -> None:
    panel.set_title(fault)
    last_s = float(rows.loc[rows["incidence"].diff() > 0, "duration_s"].max())
    right = last_s * 1.08 if last_s > 0 else 1.0
    for (engine, cause), curve in rows.groupby(["engine", "cause"], sort=False):
        steps = thinned(curve.sort_values("duration_s", kind="stable"))
        times = np.append(steps["duration_s"].to_numpy(), right)
        share, low, high = (
            np.append(steps[name].to_numpy(), steps[name].iloc[-1]) for name in ("incidence", "lo", "hi")
        )
        panel.step(
            times,
            share,
            where="post",
            color=_colour(str(cause)),
            linestyle=_DASHES[str(engine)],
            linewidth=2.4 if engine == "real" else 1.8,
            zorder=3,
        )
        if engine == "real":
            panel.fill_between(
                times,
                np.nan_to_num(low, nan=1.0),
                np.nan_to_num(high, nan=1.0),
                step="post",
                color=_colour(str(cause)),
                alpha=0.18,
                linewidth=0,
                zorder=1,
            )
    panel.set_xlim(0, right)
    panel.set_ylim(-0.03, 1.06)
    panel.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    panel.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    panel.set_xlabel("scenario seconds after the fault")


def _colour(cause: str) -> str:
    return CAUSE_COLOURS.get(cause, CAUSE_COLOURS[""])


def _name(cause: str) -> str:
    return "recovered first" if cause == "recovered" else cause_name(cause)
