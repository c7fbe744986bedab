"""From p-values and effects to verdicts: pass, fail, unknown. Corrects for the number of tests.

One run against another is dozens of tests; at 5 % each, a run would "regress" against itself most of the
time. Holm's step-down procedure (Scandinavian Journal of Statistics 6, 1979) holds the chance of even one
false alarm among all tests of a comparison at 5 %, however the tests depend on each other.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from reports.numbers import caption_seconds, rate, share

__all__ = ["ALPHA", "TOO_FEW", "adjusted", "judge_curve", "judge_rate", "judge_share"]

ALPHA = 0.05

TOO_FEW = "too few faults, or too few of them detected, to compare percentiles"

Verdict = tuple[str, str]
"""Verdict and its reason, one sentence."""


def adjusted(p_values: ArrayLike) -> NDArray[np.float64]:
    """Holm-adjusted p-values, in the order given: significant are those below α."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    found = np.empty(p.size)
    found[order] = np.minimum(stepped, 1.0)
    return found


def judge_curve(row: pd.Series[float]) -> Verdict:
    """Slower by more than the margin and significantly so: fail. Shown not to be: pass.

    The median decides, and the 99th percentile where both samples are large enough for its interval.
    """
    figures = [
        (name, row[f"{name}_difference_s"], row[f"{name}_lo_s"], row[f"{name}_hi_s"])
        for name in ("p50", "p99")
        if not np.isnan(row[f"{name}_lo_s"])
    ]
    if not figures:
        return "unknown", TOO_FEW
    worst = max(figures, key=lambda figure: figure[1])
    text = f"{worst[0]} moved by {_range(*worst[1:])}"
    if np.isposinf(worst[1]):
        text = f"{worst[0]} is no longer reached"
    elif np.isneginf(worst[1]):
        text = f"{worst[0]} is reached, which it was not before"
    slower = worst[1] > row["margin_s"]
    margin = caption_seconds(row["margin_s"])
    if slower and row["p_holm"] < ALPHA:
        return "fail", f"slower: {text}, more than the {margin} allowed"
    if slower:
        return "unknown", f"{text}, more than the {margin} allowed, but it may be chance"
    high_name, _, _, high_s = max(figures, key=lambda figure: figure[3])
    if high_s > row["margin_s"]:
        return "unknown", (
            f"{high_name} may be slower by up to {caption_seconds(high_s)}, and {margin} are allowed"
        )
    if row["p_holm"] < ALPHA and max(hi for _, _, _, hi in figures) < 0:
        return "pass", f"faster: {text}"
    return "pass", text


def judge_rate(row: pd.Series[float]) -> Verdict:
    """More false suspicions than before, significantly: fail. No higher a rate: pass."""
    before = row["count_before"] / row["client_days_before"]
    after = row["count_after"] / row["client_days_after"]
    text = f"{rate(before)} → {rate(after)} per client-day"
    if not row["count_before"] and not row["count_after"]:
        return "pass", "none in either run"
    if after <= before:
        return "pass", text
    if row["p_holm"] < ALPHA:
        return "fail", f"{text}, {rate(row['ratio'])} times as many"
    return "unknown", f"{text}: more, but it may be chance"


def judge_share(row: pd.Series[float], margin: float) -> Verdict:
    """Fewer faults detected, significantly: fail. No fewer, or by less than the margin: pass."""
    before, after = row["detected_before"] / row["n_before"], row["detected_after"] / row["n_after"]
    text = f"{share(before)} → {share(after)} detected"
    if after >= before:
        return "pass", text
    if row["p_holm"] < ALPHA:
        return "fail", f"fewer: {text}"
    if row["lo"] > -margin:
        return "pass", text
    return "unknown", f"{text}: fewer, but it may be chance"


def _range(value_s: float, lo_s: float, hi_s: float) -> str:
    return f"{caption_seconds(value_s)} ({caption_seconds(lo_s)} to {caption_seconds(hi_s)})"
