"""Theory's rows of detections.csv: each law drawn as if it were a sample, so that every engine has the same table.

They are plotting positions, not observations: fault i of n stands at the law's (i − ½)/n quantile. Nothing
is random about them, and their number says nothing of certainty; judgements use the laws themselves.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from harness.faults import Plan
from harness.frames import frame
from harness.theory.predict import Prediction

__all__ = ["plotted_detections"]


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
                ("theory", fault.fault_id, fault.fault, "", "", one.milestone,
                 one.cause if happens else "", "detected" if happens else never,
                 fault.at_s, time_s if happens else np.nan, 1.0)
            )  # fmt: skip
    return frame("detections", rows)
