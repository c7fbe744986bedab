"""How many clients it carries: what breaks as the load grows, where the knee is, and how nodes scale."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from reports.figures.data import NothingToDraw
from reports.numbers import count
from reports.style import (
    BLUE,
    MUTED,
    ORANGE,
    VERMILION,
    dot_key,
    dots,
    finish,
    grouped,
    line_key,
    new_figure,
    styled,
    tag,
)

__all__ = ["capacity"]

_PANELS = (
    ("lateness_p99_s", "Lateness of heartbeats, p99 (ms)", 1e3),
    ("cpu_percent", "Processor of the gateways (%)", 1.0),
    ("rss_bytes", "Memory of the gateways (MiB)", 2.0**-20),
)


@styled
def capacity(
    steps: pd.DataFrame,
    *,
    knee_clients: float | None = None,
    lateness_limit_s: float | None = None,
    scaling: pd.DataFrame | None = None,
    law: pd.DataFrame | None = None,
    caption: str = "",
) -> Figure:
    """Draw lateness, processor and memory over the clients held, and clients over nodes with the fitted law.

    What was not measured has no panel.

    Args:
        steps: one row per step of the load: ``clients``, ``lateness_p99_s`` (real seconds),
            ``cpu_percent``, ``rss_bytes``, ``holds`` (whether every threshold held).
        knee_clients: the most clients that hold, where more were tried and broke; None: nothing broke, or all did.
        lateness_limit_s: the threshold of the first panel, real seconds.
        scaling: measured points of the last panel: ``nodes``, ``clients``.
        law: the law fitted to them: ``nodes``, ``clients``, ``lo``, ``hi``.
        caption: the line under the figure.

    Raises:
        NothingToDraw: no step was measured.
    """
    if steps.empty:
        raise NothingToDraw("No capacity curve: no step of the load was measured.")
    shown = [panel for panel in _PANELS if steps[panel[0]].notna().any()]
    has_nodes = scaling is not None and not scaling.empty
    drawn = len(shown) + has_nodes
    figure, panels = new_figure(2, 2) if drawn > 3 else new_figure(1, max(1, drawn), height=5.0)
    rows = steps.sort_values("clients", kind="stable")
    for panel, (column, title, scale) in zip(panels, shown, strict=False):
        _steps(panel, rows, column, scale, knee_clients)
        panel.set_title(title)
        panel.set_xlabel("clients")
        if column == "lateness_p99_s" and lateness_limit_s is not None:
            _limit(panel, lateness_limit_s * 1e3)
        if column == "rss_bytes":
            _memory(panel, rows)
    if scaling is not None and has_nodes:
        _scaling(panels[len(shown)], scaling, law)
    handles: list[Line2D | Patch] = [dot_key(BLUE, "every threshold held", markeredgewidth=0)]
    if not rows["holds"].all():
        handles.append(dot_key(VERMILION, "one was missed", "X", markeredgewidth=0))
    if knee_clients is not None:
        handles.append(line_key(ORANGE, f"knee: {count(knee_clients)} clients"))
    gives_way = "" if rows["holds"].all() else ", and what gives way first"
    return finish(figure, f"What it carries{gives_way}", caption, handles)


def _steps(panel: Axes, rows: pd.DataFrame, column: str, scale: float, knee_clients: float | None) -> None:
    values = rows[column] * scale
    panel.plot(rows["clients"], values, color=BLUE, linewidth=1.6, zorder=2)
    for holds, marker, colour in ((True, "o", BLUE), (False, "X", VERMILION)):
        mine = rows["holds"] == holds
        dots(panel, rows.loc[mine, "clients"], values[mine], colour, marker)
    if knee_clients is not None:
        panel.axvline(knee_clients, color=ORANGE, linewidth=3, zorder=1)
    panel.set_xlim(0, rows["clients"].max() * 1.05)
    panel.set_ylim(0, max(float(values.max()), 1e-9) * 1.12)
    panel.xaxis.set_major_formatter(grouped(".0f"))
    panel.yaxis.set_major_formatter(grouped(".5g"))
    panel.xaxis.set_major_locator(MaxNLocator(6))


def _limit(panel: Axes, limit: float) -> None:
    panel.axhline(limit, color="#555555", linestyle=(0, (4, 2)), linewidth=1.4)
    panel.text(
        0.01,
        limit,
        f"threshold: {limit:g} ms",
        transform=panel.get_yaxis_transform(),
        fontsize=11,
        va="bottom",
        color="#555555",
    )
    panel.set_ylim(top=max(panel.get_ylim()[1], limit * 1.15))


def _memory(panel: Axes, rows: pd.DataFrame) -> None:
    """Write what a client takes: the slope over the steps, which leaves out what the process takes anyway."""
    known = rows.dropna(subset=["rss_bytes"])
    if known["clients"].nunique() < 2:
        return
    slope = np.polyfit(known["clients"], known["rss_bytes"], 1)[0]
    panel.text(
        0.03, 0.9, f"{slope / 1024:.1f} KiB a client", transform=panel.transAxes, fontsize=12, va="top"
    )


def _scaling(panel: Axes, scaling: pd.DataFrame, law: pd.DataFrame | None) -> None:
    panel.set_title("Clients by number of nodes")
    panel.set_xlabel("gateway nodes")
    points = scaling.sort_values("nodes", kind="stable")
    far = float(points["nodes"].max())
    if law is not None and len(law):
        fitted = law.sort_values("nodes", kind="stable")
        far = max(far, float(fitted["nodes"].max()))
        panel.fill_between(fitted["nodes"], fitted["lo"], fitted["hi"], color=BLUE, alpha=0.15, linewidth=0)
        panel.plot(fitted["nodes"], fitted["clients"], color=BLUE)
        _end_label(panel, far, float(fitted["lo"].iloc[-1]), "fitted law", BLUE, "top")
    per_node = float(points["clients"].iloc[0] / points["nodes"].iloc[0])
    panel.plot([0, far], [0, per_node * far], color=MUTED, linestyle=":", linewidth=1.8)
    _end_label(panel, far, per_node * far, "if it scaled linearly", MUTED, "bottom")
    dots(panel, points["nodes"], points["clients"], BLUE)
    panel.set_xlim(0, far * 1.02)
    panel.set_ylim(0, per_node * far * 1.15)
    panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    panel.yaxis.set_major_formatter(grouped(".0f"))


def _end_label(panel: Axes, x: float, y: float, text: str, colour: str, side: str) -> None:
    below = 7 if side == "bottom" else -7
    tag(panel, text, (x, y), colour, xytext=(-6, below), ha="right", va=side)
