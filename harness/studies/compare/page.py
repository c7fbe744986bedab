"""A comparison written down: a page of sentences and tables, its CSV files and figures.

From a `Comparison` to Markdown or a folder; computes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from harness.studies.compare.compare import Comparison
from harness.studies.compare.statistical_tests import ALPHA, NONE_IN_EITHER
from reports.figures.before_after import before_after
from reports.figures.data import NothingToDraw
from reports.figures.detection_curves import curve_of, step_of
from reports.figures.side_by_side import MOST_RUNS, OneRun, side_by_side
from reports.numbers import (
    ABSENT,
    MINUS,
    NBSP,
    change,
    count,
    interval,
    rate,
    seconds,
    share,
    signed_seconds,
    words,
)
from reports.page import Block, Cell, Headline, Page, Picture, Section, Table, Text
from reports.render import render_html, render_markdown
from reports.sections.cells import engine_cell, verdict_cell
from reports.sections.cost import COST_FIGURES, COST_RATES
from reports.style import save

__all__ = ["markdown", "save_comparison"]

_WORST_FIRST = {"fail": 0, "unknown": 1, "pass": 2}
_CURVES = (
    *("engine", "fault", "milestone", "n", "p50 (s)", "change of p50 (s)", "p99 (s)", "change of p99 (s)"),
    *("p, corrected", "verdict"),
)
_RATES = ("engine", "false suspicions", "per client-day", "ratio", "p, corrected", "verdict")
_SHARES = ("engine", "fault", "milestone", "detected", "share", "change", "p, corrected", "verdict")

_PANELS = 6  # a figure holds so many faults and stays readable on a slide


def markdown(comparison: Comparison) -> str:
    """Return the page, for a terminal or a pull request."""
    return render_markdown(_page(comparison), Path())


def _page(comparison: Comparison, pictures: Sequence[Block] = ()) -> Page:
    runs = [
        one.label if one.label == one.run else f"{one.label} (run {one.run})" for one in comparison.inputs
    ]
    differing = (
        f"{'differs in the scenario' if d.experiment else 'differs'}: {d}" for d in comparison.differences
    )
    reasons = (*(f"unsound: {reason}" for reason in comparison.unsound), *differing)
    drawn = [Section("figures", "Before and after", pictures)] if pictures else []
    return Page(
        name="Comparison",
        description="",
        subtitle=f"{'; '.join(runs[1:])} against the baseline {runs[0]}",
        headline=Headline(comparison.verdict, comparison.headline, reasons),
        facts=[
            Cell(str(comparison.tests), detail="comparisons tested"),
            Cell(str(comparison.seed), detail="seed of the bootstrap"),
        ],
        reading=_reading(comparison),
        sections=[*drawn, *_sections(comparison)],
    )


def _written_p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _reading(comparison: Comparison) -> list[tuple[str, str]]:
    paired = bool(len(comparison.curves)) and bool(comparison.curves["paired"].all())
    how = "fault by fault, since both ran the same plan" if paired else "each run by itself"
    return [
        (
            "tests",
            "log-rank for curves (a recovery counts as censored), the exact conditional test for rates of false "
            "suspicion, Fisher's exact test for detected shares",
        ),
        (
            "p, corrected",
            f"all p-values together (Holm): the chance of a single false alarm is {share(ALPHA)}",
        ),
        (
            "intervals",
            f"95 %, not corrected; those of p50 and p99 by bootstrap ({how}, seed {comparison.seed})",
        ),
        (
            "regression",
            f"significant and more than {share(comparison.margin)} of the baseline's median (10 ms, or ε of both runs, "
            "where that is more); times are scenario time",
        ),
    ]


def _sections(comparison: Comparison) -> Iterable[Section]:
    for anchor, title, header, table, cells in (
        ("curves", "How long", _CURVES, comparison.curves, _curve),
        ("rates", "False suspicions", _RATES, comparison.rates, _rate),
        (
            "shares",
            "How many were detected, where that changed or is undecided",
            _SHARES,
            _changed(comparison.shares),
            _share,
        ),
    ):
        if len(table):
            several = len(comparison.inputs) > 2
            rows = [
                [*([Cell(row["candidate"])] if several else []), *cells(row)] for row in _worst_first(table)
            ]
            yield Section(anchor, title, [Table([*(["run"] if several else []), *header], rows)])
    if len(comparison.costs):
        yield _costs(comparison)


def _costs(comparison: Comparison) -> Section:
    several = len(comparison.inputs) > 2
    rows = []
    for row in comparison.costs.to_dict("records"):
        what, text = COST_FIGURES[row["figure"]]
        of = " per 1,000 connections" if row["figure"] in COST_RATES else ""
        apart = 0.0 if math.isclose(row["before"], row["after"]) else float(row["change"])
        moved = text(abs(apart))
        sign = (
            ("+" if apart > 0 else MINUS) if set(moved) & set("123456789") else ""
        )  # none at what is rounded to 0
        rows.append(
            [
                *([Cell(row["candidate"])] if several else []),
                engine_cell(row["engine"]),
                Cell(f"{what}{of}"),
                Cell(text(row["before"]), row["before"]),
                Cell(text(row["after"]), row["after"]),
                Cell(f"{sign}{moved}", apart),
                Cell(change(row["before"], row["after"]), row["change_share"]),
            ]
        )
    columns = (*(["run"] if several else []), "engine", "what", "before", "after", "change", "in percent")
    note = (
        "Rates are after the ramp, per second of the scenario. Nothing is tested: a run has one value of each. CPU and "
        "memory are a machine's on that day; small changes of them are chance."
    )
    return Section("cost", "What it costs", [Table(columns, rows, note=note, csv="costs.csv")])


def _changed(shares: pd.DataFrame) -> pd.DataFrame:
    """Most shares are all or nothing in every run; shares.csv has those too."""
    return shares[(shares["difference"] != 0) | (shares["verdict"] != "pass")]


def _worst_first(table: pd.DataFrame) -> Iterable[dict[Any, Any]]:
    ordered = table.assign(_order=table["verdict"].map(_WORST_FIRST)).sort_values("_order", kind="stable")
    return ordered.to_dict("records")


def _curve(row: dict[Any, Any]) -> tuple[Cell, ...]:
    def moved(name: str) -> Cell:
        change = row[f"{name}_difference_s"]
        if change != change:
            return Cell(ABSENT)
        if math.isinf(change):
            return Cell("no longer reached" if change > 0 else "now reached")
        return Cell(signed_seconds(change), detail=interval(row[f"{name}_lo_s"], row[f"{name}_hi_s"]))

    def levels(name: str) -> Cell:
        return _arrow(seconds(row[f"{name}_before_s"]), seconds(row[f"{name}_after_s"]))

    return (
        *_case(row),
        _arrow(count(row["n_before"]), count(row["n_after"])),
        levels("p50"),
        moved("p50"),
        levels("p99"),
        moved("p99"),
        Cell(_written_p(row["p_holm"])),
        verdict_cell(row["verdict"]),
    )


def _case(row: dict[Any, Any]) -> tuple[Cell, ...]:
    return engine_cell(row["engine"]), Cell(row["fault"]), Cell(words(row["milestone"]))


def _arrow(before: str, after: str) -> Cell:
    return Cell(before if before == after else f"{before}{NBSP}→{NBSP}{after}")


def _rate(row: dict[Any, Any]) -> tuple[Cell, ...]:
    per_day = [row[f"count_{w}"] / row[f"client_days_{w}"] for w in ("before", "after")]
    nothing = row["reason"] == NONE_IN_EITHER
    return (
        engine_cell(row["engine"]),
        _arrow(count(row["count_before"]), count(row["count_after"])),
        _arrow(*map(rate, per_day)),
        Cell(ABSENT)
        if nothing
        else Cell(rate(row["ratio"]), detail=f"{rate(row['ratio_lo'])} to {rate(row['ratio_hi'])}"),
        Cell(_written_p(row["p_holm"])),
        Cell("? nothing shown", detail=NONE_IN_EITHER, tone="unknown")
        if nothing
        else verdict_cell(row["verdict"]),
    )


def _share(row: dict[Any, Any]) -> tuple[Cell, ...]:
    shares = [row[f"detected_{w}"] / row[f"n_{w}"] for w in ("before", "after")]
    points = [f"{100 * row[name]:+.1f}".replace("-", "−") for name in ("difference", "lo", "hi")]
    return (
        *_case(row),
        _arrow(*(f"{row[f'detected_{w}']} of {row[f'n_{w}']}" for w in ("before", "after"))),
        _arrow(*map(share, shares)),
        Cell(f"{points[0]} points", detail=f"{points[1]} to {points[2]}"),
        Cell(_written_p(row["p_holm"])),
        verdict_cell(row["verdict"]),
    )


def save_comparison(comparison: Comparison, folder: Path) -> list[Path]:
    """Write comparison.html and .md, curves.csv, rates.csv, shares.csv, costs.csv and the figures.

    Returns:
        What was written. Files of an earlier comparison in the same folder are replaced.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures = folder / "figures"
    for old in (*figures.glob("before_after_*"), *figures.glob("side_by_side.*")):
        old.unlink()
    pictures = list(_pictures(comparison, figures))
    page = _page(comparison, pictures)
    html, text = folder / "comparison.html", folder / "comparison.md"
    html.write_text(render_html(page), encoding="utf-8")
    text.write_text(render_markdown(page, folder), encoding="utf-8")
    written = [html, text]
    for name in ("curves", "rates", "shares", "costs"):
        written.append(folder / f"{name}.csv")
        getattr(comparison, name).to_csv(written[-1], index=False)
    return [*written, *(path for p in pictures if isinstance(p, Picture) for path in (p.svg, p.png))]


def _pictures(comparison: Comparison, folder: Path) -> Iterator[Picture | Text]:
    """The curves of each fault, run over run, and the runs side by side; a sentence where a curve is a bare step."""
    engine = _engine(comparison)
    curves = pd.concat(
        [one.tables.table("survival").assign(run=one.label) for one in comparison.inputs], ignore_index=True
    )
    laws = pd.concat(
        [one.tables.table("law_curves").assign(run=one.label) for one in comparison.inputs], ignore_index=True
    )
    curves, changes = (table[table["engine"] == engine] for table in (curves, comparison.curves))
    faults = list(dict.fromkeys(changes["fault"]))
    steps = {fault: said for fault in faults if (said := _step(curves, changes, fault))}
    seeds = dict.fromkeys(
        f"{one.tables.number('seed'):g}" for one in comparison.inputs if one.tables.number("seed") is not None
    )
    which = f"The {engine} engine, runs of seed {' / '.join(seeds) or 'unknown'}"
    caption = (
        f"{comparison.headline}. {which}; {comparison.tests} tests in all, corrected (Holm); intervals 95{NBSP}% by "
        f"bootstrap (seed {comparison.seed}). All times are scenario time."
    )
    rising = [fault for fault in faults if fault not in steps]
    for n, start in enumerate(range(0, len(rising), _PANELS), 1):
        shown = rising[start : start + _PANELS]
        try:
            figure = before_after(
                curves, changes, labels=comparison.labels, faults=shown, law_curves=laws, caption=caption
            )
        except NothingToDraw:
            continue
        title = f"Before and after: {', '.join(shown)}"
        yield Picture(f"before_after_{n}", title, *save(figure, folder, f"before_after_{n}"))
    yield from map(Text, steps.values())
    names = ("population", "healthy_connections")
    tables = [[one.tables.table(name) for name in names] for one in comparison.inputs[:MOST_RUNS]]
    runs = [
        OneRun(label, *(table[table["engine"] == engine] for table in mine))
        for label, mine in zip(comparison.labels, tables, strict=False)
    ]
    left_out = len(comparison.inputs) - len(runs)
    more = f" The last {left_out} runs are not drawn." if left_out else ""
    try:
        figure = side_by_side(runs, caption=f"{which}. All times are scenario time.{more}")
    except NothingToDraw as nothing:
        yield Text(str(nothing), "missing")
    else:
        yield Picture("side_by_side", "The runs side by side", *save(figure, folder, "side_by_side"))


def _step(curves: pd.DataFrame, changes: pd.DataFrame, fault: str) -> str:
    """In words what the curves of a fault would show, if each of them were a bare step and none got worse."""
    if (changes.loc[changes["fault"] == fault, "verdict"] == "fail").any():
        return ""
    mine = curves[(curves["fault"] == fault) & (curves["milestone"] == "suspected")]
    return step_of(fault, {str(run): curve_of(steps) for run, steps in mine.groupby("run", sort=False)})


def _engine(comparison: Comparison) -> str:
    """Reality where every run has it."""
    real = (comparison.curves["engine"] == "real").any()
    return "real" if real else "simulated"
