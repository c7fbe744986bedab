"""The tables of theory: laws.csv, law_curves.csv, and theory's rows of detections.csv; from predictions to DataFrames.

In detections.csv each law is drawn as if it were a sample, so that every engine has the same table. These rows are
plotting positions, not observations: fault i of n stands at the law's (i − ½)/n quantile. Nothing is random about them,
and their number says nothing of certainty; judgements use the laws themselves.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from harness.theory.predict import Prediction
from reports.run_tables import frame
from scenarios.plan import Plan

__all__ = ["curves_frame", "laws_frame", "plotted_detections"]


def plotted_detections(predictions: Iterable[Prediction], plan: Plan) -> pd.DataFrame:
    """Return one row per planned fault and milestone that has a law.

    What the law says never happens (its mass is below 1) is `recovered` without a time, or
    `not_applicable` where it never happens at all.
    """
    rows: list[tuple[object, ...]] = []
    for one in predictions:
        if one.law is None:
            continue
        faults = [fault for fault in plan.faults if fault.fault == one.fault]
        positions = (np.arange(len(faults)) + 0.5) / max(1, len(faults))
        times_s = one.law.quantile(positions)
        never = "recovered" if one.law.mass > 0 else "not_applicable"
        for fault, time_s in zip(faults, times_s, strict=True):
            happens = bool(np.isfinite(time_s))
            rows.append(
                (
                    "theory",
                    fault.fault_id,
                    fault.fault,
                    "",
                    "",
                    one.milestone,
                    one.cause if happens else "",
                    "detected" if happens else never,
                    fault.at_s,
                    time_s if happens else np.nan,
                    1.0,
                    time_s if happens else np.nan,
                )
            )
    return frame("detections", rows)


def laws_frame(predictions: Iterable[Prediction]) -> pd.DataFrame:
    """One row per prediction; numbers are NaN where theory is not exact.

    lo_s, hi_s and mean_s are of the detected ones; percentiles are of all faults, so they are NaN above
    ``detected_share``, the share that is ever detected.
    """
    rows: list[tuple[object, ...]] = []
    for one in predictions:
        law = one.law
        figures = (
            (float("nan"),) * 7
            if law is None
            else (law.lo_s, law.hi_s, law.mean_s, *law.quantile([0.5, 0.95, 0.99]), law.mass)
        )
        rows.append((one.fault, one.milestone, one.cause, *figures, one.note, one.shared))
    return frame("laws", rows)


def curves_frame(predictions: Iterable[Prediction], points: int = 100) -> pd.DataFrame:
    """The CDFs, from 0 to each law's mass, at even times; a jump is two rows of the same time."""
    rows: list[tuple[object, ...]] = []
    for one in predictions:
        if one.law is not None:
            t, p = one.law.curve(points)
            rows += [(one.fault, one.milestone, *point) for point in zip(t, p, strict=True)]
    return frame("law_curves", rows)
