"""A comparison as text: plain for a terminal, Markdown for a pull request. The same sentences in both.

From a `Comparison`'s tables to lines; computes nothing.

A comparison's files: text, tables, figures. From a `Comparison` to a folder; computes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from harness.studies.compare.statistical_tests import ALPHA
from reports.figures.before_after import before_after
from reports.figures.data import NothingToDraw
from reports.numbers import ABSENT, count, interval, rate, seconds, share, signed_seconds
from reports.style import save

if TYPE_CHECKING:
    from harness.studies.compare.compare import Comparison
if TYPE_CHECKING:
    from harness.studies.compare.compare import Comparison

__all__ = ["markdown", "plain", "save_comparison", "written_p"]

_WORST_FIRST = {"fail": 0, "unknown": 1, "pass": 2}
_CURVES = (
    "engine",
    "fault",
    "milestone",
    "n",
    "p50 (s)",
    "change of p50 (s)",
    "p99 (s)",
    "change of p99 (s)",
    "p, corrected",
    "verdict",
)
_RATES = ("engine", "false suspicions", "per client-day", "ratio", "p, corrected", "verdict")
_SHARES = ("engine", "fault", "milestone", "detected", "share", "change", "p, corrected", "verdict")

Row = tuple[str, ...]
Table = tuple[str, Sequence[str], list[Row]]


def plain(comparison: Comparison) -> str:
    """For a terminal: aligned columns."""
    lines = [comparison.headline, *_facts(comparison), ""]
    for title, header, rows in _tables(comparison):
        lines += [title, *_aligned(header, rows), ""]
    return "\n".join([*lines, *_method(comparison)]) + "\n"


def markdown(comparison: Comparison) -> str:
    """For a pull request: headings and pipe tables."""
    lines = [f"## {comparison.headline}", "", *(f"- {fact}" for fact in _facts(comparison)), ""]
    for title, header, rows in _tables(comparison):
        lines += [f"### {title}", "", _piped(header), _piped(["---"] * len(header))]
        lines += [*(_piped(row) for row in rows), ""]
    return "\n".join([*lines, "### How it was compared", "", " ".join(_method(comparison))]) + "\n"


def written_p(value: float) -> str:
    """Return a p-value: ``0.032``, ``< 0.001``."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _facts(comparison: Comparison) -> list[str]:
    facts = [f"verdict: {comparison.verdict}", f"baseline: {comparison.labels[0]}"]
    facts += [f"compared with it: {label}" for label in comparison.labels[1:]]
    facts += [f"unsound: {reason}" for reason in comparison.unsound]
    facts += [
        f"{'differs in the scenario' if d.experiment else 'differs'}: {d}" for d in comparison.differences
    ]
    return facts


def _method(comparison: Comparison) -> list[str]:
    paired = bool(len(comparison.curves)) and bool(comparison.curves["paired"].all())
    how = "fault by fault, since both ran the same plan" if paired else "each run by itself"
    return [
        f"{comparison.tests} tests: log-rank for curves (a recovery counts as censored), the exact",
        "conditional test for rates of false suspicion, Fisher's exact test for detected shares.",
        f"All p-values are corrected together (Holm): the chance of a single false alarm is {ALPHA:.0%}.",
        f"Intervals are 95 %, not corrected; those of p50 and p99 by bootstrap ({how}, seed {comparison.seed}).",
        f"A regression is significant and more than {comparison.margin:.0%} of the baseline's median",
        "(10 ms, or ε of both runs, where that is more). Times are scenario time.",
    ]


def _tables(comparison: Comparison) -> list[Table]:
    several = len(comparison.inputs) > 2
    found: list[Table] = []
    for title, header, table, cells in (
        ("How long", _CURVES, comparison.curves, _curve),
        ("False suspicions", _RATES, comparison.rates, _rate),
        ("How many were detected, where that changed", _SHARES, _changed(comparison.shares), _share),
    ):
        if len(table):
            first = ["run"] if several else []
            rows = [
                (*([str(row["candidate"])] if several else []), *cells(row)) for row in _worst_first(table)
            ]
            found.append((title, [*first, *header], rows))
    return found


def _changed(shares: pd.DataFrame) -> pd.DataFrame:
    """Most shares are all or nothing in every run; shares.csv has those too."""
    return shares[(shares["difference"] != 0) | (shares["verdict"] != "pass")]


def _worst_first(table: pd.DataFrame) -> Iterable[dict[Any, Any]]:
    ordered = table.assign(_order=table["verdict"].map(_WORST_FIRST)).sort_values("_order", kind="stable")
    return ordered.to_dict("records")


def _curve(row: dict[Any, Any]) -> Row:
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
        written_p(row["p_holm"]),
        row["verdict"],
    )


def _rate(row: dict[Any, Any]) -> Row:
    per_day = [row[f"count_{w}"] / row[f"client_days_{w}"] for w in ("before", "after")]
    ratio = f"{rate(row['ratio'])} ({rate(row['ratio_lo'])} to {rate(row['ratio_hi'])})"
    return (
        row["engine"],
        f"{count(row['count_before'])} → {count(row['count_after'])}",
        f"{rate(per_day[0])} → {rate(per_day[1])}",
        ratio,
        written_p(row["p_holm"]),
        row["verdict"],
    )


def _share(row: dict[Any, Any]) -> Row:
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
        written_p(row["p_holm"]),
        row["verdict"],
    )


def _aligned(header: Sequence[str], rows: Sequence[Row]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (header, *rows)
    ]


def _piped(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


_PANELS = 6  # a figure holds so many faults and stays readable on a slide


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
