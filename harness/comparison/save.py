"""A comparison's files: text, tables, figures. From a `Comparison` to a folder; computes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from harness.comparison.text import markdown
from reports.figures.before_after import before_after
from reports.figures.data import NothingToDraw
from reports.style import save

if TYPE_CHECKING:
    from harness.compare import Comparison

__all__ = ["save_comparison"]

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
        [one.tables.table("survival").assign(run=one.label) for one in comparison.inputs],
        ignore_index=True,
    )
    engine = _engine(comparison)
    faults = list(
        dict.fromkeys(comparison.curves.loc[comparison.curves["engine"] == engine, "fault"])
    )
    seeds = dict.fromkeys(f"{one.tables.number('seed'):g}" for one in comparison.inputs
                          if one.tables.number("seed") is not None)  # fmt: skip
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
