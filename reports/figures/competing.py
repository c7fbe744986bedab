"""Who was first, by when: of each fault that several layers compete for, the share that each had caught."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.figures.data import (
    DASHES,
    NothingToDraw,
    engine_stairs,
    fault_panels,
    in_order,
    since_fault,
    thinned,
)
from reports.numbers import cause_name
from reports.style import CAUSE_COLOURS, finish, line_key, share_axis, styled

__all__ = ["competing", "contested"]

_MOST = 6


def contested(incidence: pd.DataFrame) -> list[str]:
    """Faults that more than one layer caught, or that some recovered from, in the table's order."""
    # A witness that names no layer is no second layer beside what another engine calls it.
    named = incidence[incidence["cause"] != ""].groupby("fault")["cause"].nunique()
    in_one = incidence.groupby(["fault", "engine"])["cause"].nunique().groupby("fault").max()
    found = {*named.index[named > 1], *in_one.index[in_one > 1]}
    return [fault for fault in in_order(incidence["fault"]) if fault in found]


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
    figure, panels = fault_panels(len(faults), "share of all faults")
    for panel, fault in zip(panels, faults, strict=True):
        _panel(panel, fault, incidence[incidence["fault"] == fault])
    shown = incidence[incidence["fault"].isin(faults)]
    handles = [line_key(_colour(cause), _name(cause)) for cause in in_order(shown["cause"])]
    handles += [
        line_key("#555555", engine, linestyle=dash, linewidth=None)
        for engine, dash in DASHES.items()
        if (shown["engine"] == engine).any()
    ]
    return finish(figure, "Which layer was first, and by when", caption, handles)


def _panel(panel: Axes, fault: str, rows: pd.DataFrame) -> None:
    panel.set_title(fault)
    last_s = float(rows.loc[rows["incidence"].diff() > 0, "duration_s"].max())
    right = last_s * 1.08 if last_s > 0 else 1.0
    for (engine, cause), curve in rows.groupby(["engine", "cause"], sort=False):
        steps = thinned(curve.sort_values("duration_s", kind="stable"))
        shares = [steps[name] for name in ("incidence", "lo", "hi")]
        engine_stairs(panel, str(engine), steps["duration_s"], shares, right, _colour(str(cause)))
    share_axis(panel)
    since_fault(panel, 0, right)


def _colour(cause: str) -> str:
    return CAUSE_COLOURS.get(cause, CAUSE_COLOURS[""])


def _name(cause: str) -> str:
    return "recovered first" if cause == "recovered" else cause_name(cause)
