"""Every figure of a report: which there are, what they are called, and the sentence for one that cannot be.

From the tables of a run to saved figures; how each is drawn is in `figures/`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Final, TypeVar

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

_T = TypeVar("_T")
_PANELS: Final = 6  # a figure of curves holds so many faults and stays readable on a slide
_MOST_TIMELINES: Final = 12


def draw(tables: RunTables, agreement: pd.DataFrame, folder: Path) -> Gallery:
    """Draw and save all figures as SVG and PNG, on all processors."""
    steps = _steps(tables)
    planned = list(_plan(tables, agreement, steps))

    def made(n: int) -> Picture | Text:
        _, name, title, figure = planned[n]
        try:
            return Picture(name, title, *save(figure(), folder, name))
        except figures.NothingToDraw as nothing:
            return Text(str(nothing), "missing")

    gallery: dict[str, list[Picture | Text]] = {}
    for (place, *_), shown in zip(planned, _on_all_processors(made, len(planned)), strict=True):
        gallery.setdefault(place, []).append(shown)
    gallery.setdefault("curves", []).extend(map(Text, steps.values()))
    return gallery


def _on_all_processors(make: Callable[[int], _T], count: int) -> list[_T]:
    """Return what ``make`` makes of 0, 1, … count - 1; this process and copies of it take one after the other.

    What a copy fails at is made again here, where its error is raised.
    """
    processors = (
        len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1
    )  # elsewhere a fork is not safe
    fork = get_context("fork")
    taken, made = fork.Value("i", 0), fork.SimpleQueue()
    found: dict[int, _T] = {}

    def work() -> Iterator[tuple[int, _T]]:
        while True:
            with taken.get_lock():
                n, taken.value = taken.value, taken.value + 1
            if n >= count:
                return
            yield n, make(n)

    def work_there() -> None:
        try:
            for one in work():
                made.put(one)
        finally:
            os._exit(0)  # streams and locks are copies of those of a program that goes on

    copies = [fork.Process(target=work_there, daemon=True) for _ in range(min(processors, count) - 1)]
    for copy in copies:
        copy.start()
    found.update(work())
    for copy in copies:
        copy.join()
    while not made.empty():
        found.update([made.get()])
    return [found[n] if n in found else make(n) for n in range(count)]


def _steps(tables: RunTables) -> dict[str, str]:
    """By fault, in words what its curves would show if they were bare steps."""
    curves = partial(figures.step_in_words, tables.table("law_curves"), tables.table("survival"))
    said = {fault: curves(fault, epsilon_s=tables.number("epsilon_s") or 0.0) for fault in tables.faults}
    return {fault: words for fault, words in said.items() if words}


def _plan(
    tables: RunTables, agreement: pd.DataFrame, steps: Mapping[str, str]
) -> Iterator[tuple[str, str, str, Callable[[], Figure]]]:
    of = tables.table
    caption, caption_of_one = _caption(tables), _caption(tables, with_n=False)
    epsilon_s, windows = tables.number("epsilon_s") or 0.0, tables.records("fault_windows")
    rising = [fault for fault in tables.faults if fault not in steps]
    for n, faults in enumerate(_pages(rising) if rising or not steps else [], 1):
        title = f"Detection-latency curves: {', '.join(faults)}"
        curves = partial(figures.detection_curves, of("law_curves"), of("survival"), epsilon_s=epsilon_s)
        yield "curves", f"detection_curves_{n}", title, partial(curves, faults=faults, caption=caption)
    title = "Healthy clients that lost their connection"
    yield (
        "losses",
        "losses",
        title,
        partial(figures.losses, of("healthy_connections"), caption=caption_of_one),
    )
    title = "Differences of percentiles in units of their tolerance"
    yield "agreement", "agreement", title, partial(figures.agreement_chart, agreement, caption=caption)
    title = "Which layer caught what"
    yield "layers", "layers", title, partial(figures.layers, of("detections"), caption=caption)
    title = "Detection latency by fault and layer"
    latency = partial(figures.latency_by_layer, of("detections"), of("laws"), caption=caption)
    yield "layers", "latency_by_layer", title, latency
    if figures.contested(of("incidence")):
        title = "Which layer was first, and by when"
        yield (
            "layers",
            "competing_layers",
            title,
            partial(figures.competing, of("incidence"), caption=caption),
        )
    traced = [fault for fault in tables.faults if (of("timelines")["fault"] == fault).any()]
    for fault in traced[:_MOST_TIMELINES] or tables.faults[:1]:
        timeline = partial(figures.timeline, of("timelines"), fault, caption=caption_of_one)
        yield "timelines", f"timeline_{fault}", f"Timeline of one client: {fault}", timeline
    title = "Live clients, sessions in the store and ghosts over the run"
    again = of("qos")[(of("qos")["milestone"] == "locked_out") & (of("qos")["engine"] == "real")]
    more = (
        " Users who logged in again are in the store, and no client of the run." if again["n"].any() else ""
    )
    live = partial(figures.live_sessions, of("population"), windows, of("counted"), caption=caption + more)
    yield "live", "live_sessions", title, live
    if figures.en_masse(of("reconnects")):
        storm = partial(figures.storm, of("reconnects"), windows, caption=caption)
        yield "storm", "storm", "Who comes, who goes, who is turned away", storm
    lag, late = of("lag"), of("lateness")
    lateness = partial(figures.lateness, lag, late, window_s=tables.epsilon_window_s, pace=tables.pace)
    title = "Lag of the loops" if late.empty else "Lag of the loops and lateness of the heartbeats"
    yield "lateness", "lateness", title, partial(lateness, caption=caption_of_one)


def _pages(faults: list[str]) -> list[list[str]]:
    """Split the faults into figures of about equal size."""
    pages = max(1, -(-len(faults) // _PANELS))
    size = max(1, -(-len(faults) // pages))
    return [faults[n * size : (n + 1) * size] for n in range(pages)]


def _caption(tables: RunTables, with_n: bool = True) -> str:
    seed, epsilon_s = tables.number("seed"), tables.number("epsilon_s")
    parts = [tables.name, "" if seed is None else f"seed {seed:.0f}"]
    if "real" in tables.engines:
        parts.append(f"real clients at speedup {tables.pace:g}")
    if epsilon_s is not None:
        parts.append(f"ε = {caption_seconds(epsilon_s)}")
    if with_n:
        seen = tables.table("detections")
        seen = seen[(seen["milestone"] == "suspected") & (seen["outcome"] != "not_applicable")]
        sizes = [f"{count((seen['engine'] == e).sum())} {e}" for e in tables.measured_engines]
        parts.append(f"faults: {', '.join(sizes)}" if sizes else "no measured faults")
    return " · ".join(part for part in parts if part) + ". All times are scenario time."
