"""A comparison written down: a page of sentences and tables, its CSV files and figures.

From a `Comparison` to Markdown or a folder; computes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from harness.studies.compare.compare import Comparison
from harness.studies.compare.statistical_tests import ALPHA
from reports.figures.before_after import before_after
from reports.figures.data import NothingToDraw
from reports.numbers import ABSENT, count, interval, rate, seconds, share, signed_seconds
from reports.page import Cell, Headline, Page, Section, Table
from reports.render import render_markdown
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
    baseline, *others = comparison.labels
    differing = (
        f"{'differs in the scenario' if d.experiment else 'differs'}: {d}" for d in comparison.differences
    )
    reasons = (*(f"unsound: {reason}" for reason in comparison.unsound), *differing)
    page = Page(
        name="Comparison",
        description="",
        subtitle=f"{', '.join(others)} against the baseline {baseline}",
        headline=Headline(comparison.verdict, comparison.headline, reasons),
        facts=[Cell(str(comparison.tests), detail="tests"), Cell(str(comparison.seed), detail="seed")],
        reading=_reading(comparison),
        sections=list(_sections(comparison)),
    )
    return render_markdown(page, Path())


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
        ("p, corrected", f"all p-values together (Holm): the chance of a single false alarm is {ALPHA:.0%}"),
        (
            "intervals",
            f"95 %, not corrected; those of p50 and p99 by bootstrap ({how}, seed {comparison.seed})",
        ),
        (
            "regression",
            f"significant and more than {comparison.margin:.0%} of the baseline's median (10 ms, or ε of both runs, "
            "where that is more); times are scenario time",
        ),
    ]


def _sections(comparison: Comparison) -> Iterable[Section]:
    for anchor, title, header, table, cells in (
        ("curves", "How long", _CURVES, comparison.curves, _curve),
        ("rates", "False suspicions", _RATES, comparison.rates, _rate),
        (
            "shares",
            "How many were detected, where that changed",
            _SHARES,
            _changed(comparison.shares),
            _share,
        ),
    ):
        if len(table):
            several = len(comparison.inputs) > 2
            rows = [
                [Cell(cell) for cell in (*([row["candidate"]] if several else []), *cells(row))]
                for row in _worst_first(table)
            ]
            yield Section(anchor, title, [Table([*(["run"] if several else []), *header], rows)])


def _changed(shares: pd.DataFrame) -> pd.DataFrame:
    """Most shares are all or nothing in every run; shares.csv has those too."""
    return shares[(shares["difference"] != 0) | (shares["verdict"] != "pass")]


def _worst_first(table: pd.DataFrame) -> Iterable[dict[Any, Any]]:
    ordered = table.assign(_order=table["verdict"].map(_WORST_FIRST)).sort_values("_order", kind="stable")
    return ordered.to_dict("records")


def _curve(row: dict[Any, Any]) -> tuple[str, ...]:
    def moved(name: str) -> str:
        change = row[f"{name}_difference_s"]
        if change != change:
            return ABSENT
        return f"{signed_seconds(change)} ({interval(row[f'{name}_lo_s'], row[f'{name}_hi_s'])})"

    def levels(name: str) -> str:
        return f"{seconds(row[f'{name}_before_s'])} → {seconds(row[f'{name}_after_s'])}"

    return (
        row["engine"],
        row["fault"],
        row["milestone"],
        f"{count(row['n_before'])} / {count(row['n_after'])}",
        levels("p50"),
        moved("p50"),
        levels("p99"),
        moved("p99"),
        _written_p(row["p_holm"]),
        row["verdict"],
    )


def _rate(row: dict[Any, Any]) -> tuple[str, ...]:
    per_day = [row[f"count_{w}"] / row[f"client_days_{w}"] for w in ("before", "after")]
    ratio = f"{rate(row['ratio'])} ({rate(row['ratio_lo'])} to {rate(row['ratio_hi'])})"
    return (
        row["engine"],
        f"{count(row['count_before'])} → {count(row['count_after'])}",
        f"{rate(per_day[0])} → {rate(per_day[1])}",
        ratio,
        _written_p(row["p_holm"]),
        row["verdict"],
    )


def _share(row: dict[Any, Any]) -> tuple[str, ...]:
    shares = [row[f"detected_{w}"] / row[f"n_{w}"] for w in ("before", "after")]
    points = [f"{100 * row[name]:+.1f}".replace("-", "−") for name in ("difference", "lo", "hi")]
    detected = " → ".join(f"{row[f'detected_{w}']} of {row[f'n_{w}']}" for w in ("before", "after"))
    return (
        row["engine"],
        row["fault"],
        row["milestone"],
        detected,
        f"{share(shares[0])} → {share(shares[1])}",
        f"{points[0]} ({points[1]} to {points[2]}) points",
        _written_p(row["p_holm"]),
        row["verdict"],
    )


def save_comparison(comparison: Comparison, folder: Path) -> list[Path]:
    """Write comparison.md, curves.csv, rates.csv, shares.csv and before_after_N.svg and .png.

    Returns:
        What was written. Files of an earlier comparison in the same folder are replaced.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("before_after_*"):
        old.unlink()
    text = folder / "comparison.md"
    text.write_text(markdown(comparison), encoding="utf-8")
    written = [text]
    for name in ("curves", "rates", "shares"):
        written.append(folder / f"{name}.csv")
        getattr(comparison, name).to_csv(written[-1], index=False)
    curves = pd.concat(
        [one.tables.table("survival").assign(run=one.label) for one in comparison.inputs], ignore_index=True
    )
    engine = _engine(comparison)
    faults = list(dict.fromkeys(comparison.curves.loc[comparison.curves["engine"] == engine, "fault"]))
    seeds = dict.fromkeys(
        f"{one.tables.number('seed'):g}" for one in comparison.inputs if one.tables.number("seed") is not None
    )
    caption = (
        f"{comparison.headline}. The {engine} engine, runs of seed {' / '.join(seeds) or 'unknown'}; "
        f"{comparison.tests} tests in all, corrected (Holm); intervals 95 % by bootstrap (seed "
        f"{comparison.seed}). All times are scenario time."
    )
    for n, start in enumerate(range(0, len(faults), _PANELS), 1):
        try:
            figure = before_after(
                curves[curves["engine"] == engine],
                comparison.curves[comparison.curves["engine"] == engine],
                labels=comparison.labels,
                faults=faults[start : start + _PANELS],
                caption=caption,
            )
        except NothingToDraw:
            continue
        written += save(figure, folder, f"before_after_{n}")
    return written


def _engine(comparison: Comparison) -> str:
    """Reality where every run has it."""
    real = (comparison.curves["engine"] == "real").any()
    return "real" if real else "simulated"
