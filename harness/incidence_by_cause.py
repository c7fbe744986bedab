"""Detections → incidence.csv: of all faults of a kind, what share had each layer caught by when.

The Aalen–Johansen cumulative incidence per layer. Layers compete: a fault that one has caught can no longer
be caught by another; so does recovery, which has a curve of its own. At any time the curves of all causes
and the share still undetected add up to 1, which one minus a Kaplan–Meier curve per layer would not.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from harness.frames import frame
from harness.survival import Incidence, incidence

__all__ = ["RECOVERED", "incidence_by_cause"]

RECOVERED = "recovered"
"""The cause that stands for recovery; no layer has this name."""


def incidence_by_cause(detections: pd.DataFrame, milestone: str = "suspected") -> pd.DataFrame:
    """One row per engine, fault, cause and step of its curve, from (0, 0) to the last time watched.

    ``lo`` and ``hi`` are 95 % bounds (complementary log-log, delta-method variance; see `survival.py`),
    empty where the incidence is 1. A cause that never came has no rows. A detection without a cause (the
    gateway named none) is a layer of its own, with an empty name.

    Args:
        detections: detections.csv; what is not applicable is left out, the run's end censors.
        milestone: which one.

    Source: Aalen and Johansen, Scandinavian Journal of Statistics 5, 1978.
    """
    rows: list[tuple[object, ...]] = []
    seen = detections[
        (detections["milestone"] == milestone) & (detections["outcome"] != "not_applicable")
    ]
    for key, group in seen.groupby(["engine", "fault"], sort=False):
        assert isinstance(key, tuple)
        for cause, curve in _curves(group):
            # The curve is flat between its own events, and on to the end of what was watched.
            shown = curve.detected > 0
            shown[-1] = True
            steps = (curve.time_s, 1 - curve.survival, 1 - curve.hi, 1 - curve.lo)
            rows.append((*key, cause, 0.0, 0.0, 0.0, 0.0))
            rows += [(*key, cause, *step) for step in zip(*(s[shown] for s in steps), strict=True)]
    return frame("incidence", rows)


def _curves(group: pd.DataFrame) -> Iterator[tuple[str, Incidence]]:
    """Each cause's curve, the most frequent first: to it, every other end is a recovery."""
    ended = group["outcome"] != "censored"
    cause = group["cause"].where(group["outcome"] == "detected", RECOVERED)
    for name in cause[ended].value_counts().index:
        outcome = np.where(
            ended, np.where(cause == name, "detected", "recovered"), "censored"
        ).astype(object)
        yield str(name), incidence(group["duration_s"].to_numpy(), outcome)
