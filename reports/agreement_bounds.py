"""Two comparisons of an engine with a law that need few faults: its range, and the share that is detected.

From what was observed to rows of agreement.csv; the rules are in `agreement.py`.
"""

from __future__ import annotations

import math
from typing import Final

from scipy import stats

from reports.numbers import caption_seconds as in_seconds
from reports.numbers import share
from reports.observed import CONFIDENCE, ROUNDING_S, Law, Observed

__all__ = ["SHARE_TOLERANCE", "range_row", "share_row"]

SHARE_TOLERANCE: Final = 0.05  # where the law leaves it to chance who is detected
Row = dict[str, object]


def range_row(law: Law, seen: Observed) -> Row:
    """Every detection lies in the law's range, give or take the engine's slack."""
    n = len(seen.detected_s)
    row: Row = {
        "figure": "range", "left": seen.engine, "right": "theory", "n": n, "tolerance_s": seen.slack_s,
    }  # fmt: skip
    if law.mass <= 0:
        if n:
            return {
                **row,
                "verdict": "fail",
                "reason": f"{n} were detected, the law says that none is",
            }
        return {**row, "verdict": "pass", "reason": "no detection, as the law says"}
    if math.isnan(seen.slack_s):
        return {**row, "verdict": "unknown", "reason": "ε of this run is not known"}
    allowed_s = seen.slack_s + ROUNDING_S
    around = f"[{in_seconds(law.lo_s)}, {in_seconds(law.hi_s)}] ± {in_seconds(seen.slack_s)}"
    low_s = float(seen.detected_s.min()) if n else math.inf
    high_s = float(seen.detected_s.max()) if n else -math.inf
    took = f"they took {in_seconds(low_s)} to {in_seconds(high_s)}"
    early_s, late_s = law.lo_s - low_s, high_s - law.hi_s
    extreme_s, bound_s = (low_s, law.lo_s) if early_s >= late_s else (high_s, law.hi_s)
    outside = int(
        ((seen.detected_s < law.lo_s - allowed_s) | (seen.detected_s > law.hi_s + allowed_s)).sum()
    )
    if outside:
        return {
            **row, "left_s": extreme_s, "right_s": bound_s, "difference_s": extreme_s - bound_s,
            "verdict": "fail", "reason": f"{outside} of {n} detections lie outside {around}: {took}",
        }  # fmt: skip
    if law.mass >= 1 and seen.outlasted_s > law.hi_s + allowed_s:
        return {
            **row, "left_s": seen.outlasted_s, "right_s": law.hi_s,
            "difference_s": seen.outlasted_s - law.hi_s, "verdict": "fail",
            "reason": f"watched for {in_seconds(seen.outlasted_s)} and not detected; the law says that all are "
            f"by {in_seconds(law.hi_s)}",
        }  # fmt: skip
    if not n:
        return {**row, "verdict": "unknown", "reason": seen.nothing_seen()}
    # 0 inside the range: only what lies outside is a difference.
    beyond_s = extreme_s - bound_s if max(early_s, late_s) > 0 else 0.0
    return {
        **row, "left_s": extreme_s, "right_s": bound_s, "difference_s": beyond_s,
        "verdict": "pass", "reason": f"all {n} detections lie in {around}: {took}",
    }  # fmt: skip


def share_row(law: Law, seen: Observed, confidence: float) -> Row:
    """As many are detected as the law says (exact binomial test). The row's numbers are shares, not seconds."""
    by_chance = 0 < law.mass < 1
    n, k = seen.n, seen.detected
    row: Row = {
        "figure": "share", "left": seen.engine, "right": "theory", "right_s": law.mass, "n": n,
        "tolerance_s": SHARE_TOLERANCE if by_chance else 0.0,
    }  # fmt: skip
    if not n:
        if law.mass <= 0 and not len(seen.detected_s):
            return {
                **row,
                "verdict": "pass",
                "reason": "no such fault took effect, as the law says",
            }
        return {**row, "verdict": "unknown", "reason": seen.nothing_seen()}
    mass = min(1.0, max(0.0, law.mass))
    test = stats.binomtest(k, n, mass)
    bounds = test.proportion_ci(CONFIDENCE)
    apart = k / n - mass
    lo, hi = float(bounds.low) - mass, float(bounds.high) - mass
    row |= {"left_s": k / n, "difference_s": apart, "lo_s": lo, "hi_s": hi}
    by = f" by {in_seconds(law.until_s)}" if math.isfinite(law.until_s) else ""
    of_n = f"{k} of {n} were detected{by}, the law says {share(mass)}"
    if not by_chance:
        return {**row, "verdict": "pass" if apart == 0 else "fail", "reason": of_n}
    if abs(apart) > SHARE_TOLERANCE and test.pvalue < 1 - confidence:
        return {**row, "verdict": "fail", "reason": f"{of_n}; exact p = {test.pvalue:.2g}"}
    if max(abs(apart), apart - lo, hi - apart) <= SHARE_TOLERANCE:
        return {**row, "verdict": "pass", "reason": of_n}
    why = f"too few faults to tell within {share(SHARE_TOLERANCE)}"
    return {**row, "verdict": "unknown", "reason": f"{of_n}; {why}"}
