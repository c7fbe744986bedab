"""Every figure of a report: which there are, what they are called, and the sentence for one that cannot be.

From the tables of a run to saved figures; how each is drawn is in `figures/`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import pandas as pd
from matplotlib.figure import Figure

from reports import figures
from reports.numbers import caption_seconds, count
from reports.page import Picture, Text
from reports.run_tables import RunTables
from reports.style import save

__all__ = ["Gallery", "draw"]

Gallery = Mapping[str, list[Picture | Text]]
"""Figures by the place where they belong, each list in order."""

_PANELS: Final = 6  # a figure of curves holds so many faults and stays readable on a slide
_MOST_TIMELINES: Final = 12


def draw(tables: RunTables, agreement: pd.DataFrame, folder: Path) -> Gallery:
    """Draw and save all figures as SVG and PNG."""
    gallery: dict[str, list[Picture | Text]] = {}
    for place, name, title, figure in _plan(tables, agreement):
        try:
            svg, png = save(figure(), folder, name)
        except figures.NothingToDraw as nothing:
            gallery.setdefault(place, []).append(Text(str(nothing), "missing"))
        else:
            gallery.setdefault(place, []).append(Picture(name, title, svg, png))
    return gallery


def _plan(tables: RunTables, agreement: pd.DataFrame) -> Iterator[tuple[str, str, str, Callable[[], Figure]]]:
    of = tables.table
    caption = _caption(tables)
    for n, faults in enumerate(_pages(tables), 1):
        yield (
            "curves",
            f"detection_curves_{n}",
            f"Detection-latency curves: {', '.join(faults)}",
            lambda faults=faults: figures.detection_curves(  # type: ignore[misc]  # bound at once, not late
                of("law_curves"),
                of("survival"),
                faults=faults,
                epsilon_s=tables.number("epsilon_s") or 0.0,
                caption=caption,
            ),
        )
    yield (
        "agreement",
        "agreement",
        "Differences of percentiles in units of their tolerance",
        (lambda: figures.agreement_chart(agreement, caption=caption)),
    )
    yield (
        "layers",
        "layers",
        "Which layer caught what",
        (lambda: figures.layers(of("detections"), caption=caption)),
    )
    yield (
        "layers",
        "latency_by_layer",
        "Detection latency by fault and layer",
        (lambda: figures.latency_by_layer(of("detections"), of("laws"), caption=caption)),
    )
    if figures.contested(of("incidence")):
        yield (
            "layers",
            "competing_layers",
            "Which layer was first, and by when",
            (lambda: figures.competing(of("incidence"), caption=caption)),
        )
    traced = [fault for fault in tables.faults if (of("timelines")["fault"] == fault).any()]
    for fault in traced[:_MOST_TIMELINES] or tables.faults[:1]:
        yield (
            "timelines",
            f"timeline_{fault}",
            f"Timeline of one client: {fault}",
            lambda fault=fault: figures.timeline(of("timelines"), fault, caption=_caption(tables, False)),  # type: ignore[misc]
        )
    yield (
        "live",
        "live_sessions",
        "Live clients, sessions in the store and ghosts over the run",
        (lambda: figures.live_sessions(of("population"), tables.records("fault_windows"), caption=caption)),
    )
    if figures.en_masse(of("reconnects")):
        yield (
            "storm",
            "storm",
            "Who comes, who goes, who is turned away",
            (lambda: figures.storm(of("reconnects"), tables.records("fault_windows"), caption=caption)),
        )
    yield (
        "lateness",
        "lateness",
        "Lag of the loops and lateness of the heartbeats",
        (
            lambda: figures.lateness(
                of("lag"),
                of("lateness"),
                speedup=tables.number("speedup") or 1.0,
                caption=_caption(tables, False),
            )
        ),
    )


def _pages(tables: RunTables) -> list[list[str]]:
    """Split the faults into figures of about equal size; one empty page where there is none."""
    faults = list(tables.faults)
    pages = max(1, -(-len(faults) // _PANELS))
    size = max(1, -(-len(faults) // pages))
    return [faults[n * size : (n + 1) * size] for n in range(pages)]


def _caption(tables: RunTables, with_n: bool = True) -> str:
    seed, speedup, epsilon_s = (tables.number(key) for key in ("seed", "speedup", "epsilon_s"))
    parts = [tables.name, "" if seed is None else f"seed {seed:.0f}"]
    if "real" in tables.engines and speedup is not None:
        parts.append(f"real clients at speedup {speedup:g}")
    if epsilon_s is not None:
        parts.append(f"ε = {caption_seconds(epsilon_s)}")
    if with_n:
        seen = tables.table("detections")
        seen = seen[(seen["milestone"] == "suspected") & (seen["outcome"] != "not_applicable")]
        sizes = [f"{count((seen['engine'] == e).sum())} {e}" for e in tables.measured_engines]
        parts.append(f"faults: {', '.join(sizes)}" if sizes else "no measured faults")
    return " · ".join(part for part in parts if part) + ". All times are scenario time."
