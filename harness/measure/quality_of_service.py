"""Detections → quality of service: percentiles with intervals, survival curves, which layer caught what.

From detections.csv to qos.csv, breakdown.csv, survival.csv and detections_by_layer.csv. The estimators are in
`harness/statistics/incidence.py`.

Detections → incidence.csv: of all faults of a kind, what share had each layer caught by when.

The Aalen–Johansen cumulative incidence per layer. Layers compete: a fault that one has caught can no longer
be caught by another; so does recovery, which has a curve of its own. At any time the curves of all causes
and the share still undetected add up to 1, which one minus a Kaplan–Meier curve per layer would not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from harness.statistics.incidence import Incidence, Quantile, incidence
from reports.run_tables import PERCENTILES, frame

__all__ = [
    "RECOVERED",
    "bounds",
    "breakdown",
    "curve_of",
    "detections_by_layer",
    "incidence_by_cause",
    "qos",
    "survival",
]

RECOVERED = "recovered"
"""The cause that stands for recovery; no layer has this name."""


def incidence_by_cause(detections: pd.DataFrame, milestone: str = "suspected") -> pd.DataFrame:
    """One row per engine, fault, cause and step of its curve, from (0, 0) to the last time watched.

    ``lo`` and ``hi`` are 95 % bounds (complementary log-log, delta-method variance), empty where the incidence
    is 1. A cause that never came has no rows. A detection without a cause (the gateway named none) is a layer
    of its own, with an empty name.

    Args:
        detections: detections.csv; what is not applicable is left out, the run's end censors.
        milestone: which one.

    Source: Aalen and Johansen, Scandinavian Journal of Statistics 5, 1978.
    """
    rows: list[tuple[object, ...]] = []
    seen = detections[(detections["milestone"] == milestone) & (detections["outcome"] != "not_applicable")]
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
        outcome = np.where(ended, np.where(cause == name, "detected", "recovered"), "censored").astype(object)
        yield str(name), incidence(group["duration_s"].to_numpy(), outcome)


_GROUP = ["engine", "fault", "milestone"]


def curve_of(rows: pd.DataFrame) -> Incidence | None:
    """Cumulative incidence of some rows of detections; None where none of them is applicable."""
    seen = rows[rows["outcome"] != "not_applicable"]
    return incidence(seen["duration_s"].to_numpy(), seen["outcome"].to_numpy()) if len(seen) else None


def _quantiles_between(rows: pd.DataFrame) -> Callable[[float], Quantile] | None:
    """Quantiles of some rows of detections, their intervals widened by what lies between two looks.

    The value is that of the looks which saw it; the lower bound is that of the looks before. None: as `curve_of`.
    """
    seen = rows[rows["outcome"] != "not_applicable"]
    earliest_s = seen["earliest_s"].fillna(seen["duration_s"])
    late = early = curve_of(seen)
    if not earliest_s.equals(seen["duration_s"]):
        early = curve_of(seen.assign(duration_s=earliest_s))
    if late is None or early is None:
        return None
    return lambda q: replace(late.quantile(q), lo_s=early.quantile(q).lo_s)


def bounds(quantile: Quantile) -> tuple[float, float]:
    """The interval as tables show it: NaN where the sample is too small for one, or a side has no end."""
    if not quantile.exists:
        return float("nan"), float("nan")
    return (
        quantile.lo_s if np.isfinite(quantile.lo_s) else float("nan"),
        quantile.hi_s if np.isfinite(quantile.hi_s) else float("nan"),
    )


def qos(detections: pd.DataFrame) -> pd.DataFrame:
    """One row per engine, fault and milestone.

    ``n`` = detected + censored + recovered. Percentiles are of all n: pXX is the time by which XX % of
    the faults had been detected, empty where that was not reached. Their 95 % bounds are empty where n is
    too small (p50: 6, p95: 72, p99: 368); the percentile itself is then still the sample's. ``mean_s`` is
    over the detected ones, and empty where the run's end censored any: it would flatter. ``max_s`` is the
    longest detection seen, to be read with ``censored``.
    """
    return frame("qos", [(*key, *_figures(rows)) for key, rows in _groups(detections, _GROUP)])


def breakdown(detections: pd.DataFrame) -> pd.DataFrame:
    """The figures of :func:`qos` for each node that held a client, and for each layer that decided.

    Only where there is more than one. ``dimension`` is ``node`` or ``cause``. A node's rows hold all its faults,
    the undetected ones too. A cause's rows hold what that layer caught and nothing else, so its percentiles
    are conditional on that: how likely it was to be this layer is in incidence.csv.
    """
    found = detections[detections["outcome"] == "detected"]
    rows = []
    for by, seen in (("node", detections[detections["node"] != ""]), ("cause", found)):
        parts = seen.groupby(_GROUP)[by].transform("nunique")
        for (*key, part), group in _groups(seen[parts > 1], [*_GROUP, by]):
            rows.append((*key, by, part, *_figures(group)))
    return frame("breakdown", rows)


def _figures(group: pd.DataFrame) -> tuple[float, ...]:
    """n, counts by outcome, mean, percentiles with their bounds, maximum."""
    count = group["outcome"].value_counts()
    quantile = _quantiles_between(group)
    figures: list[float] = []
    for q in PERCENTILES.values():
        found = None if quantile is None else quantile(q)
        figures += [float("nan")] * 3 if found is None else [found.value_s, *bounds(found)]
    seen = group.loc[group["outcome"] == "detected", "duration_s"]
    outcomes = ("detected", "censored", "recovered", "not_applicable")
    return (
        len(group) - int(count.get("not_applicable", 0)),
        *(int(count.get(name, 0)) for name in outcomes),
        seen.mean() if not count.get("censored", 0) else float("nan"),
        *figures,
        seen.max(),
    )


def survival(detections: pd.DataFrame) -> pd.DataFrame:
    """The curves: share of faults not yet detected, from time 0, at each detection, to the last time watched."""
    rows: list[tuple[object, ...]] = []
    for key, group in _groups(detections, _GROUP):
        curve = curve_of(group)
        if curve is None:
            continue
        rows.append((*key, 0.0, 1.0, 1.0, 1.0, curve.n))
        shown = curve.detected > 0
        shown[-1] = True  # the curve is flat to the end of what was watched
        columns = (curve.time_s, curve.survival, curve.lo, curve.hi, curve.at_risk)
        rows += [(*key, *point) for point in zip(*(c[shown] for c in columns), strict=True)]
    return frame("survival", rows)


def detections_by_layer(detections: pd.DataFrame) -> pd.DataFrame:
    """Which layer decided: suspicions per engine, fault and cause, the most frequent first.

    ``median_s`` is inf{t : F(t) ≥ 1/2} as in qos.csv: where one layer caught all of a fault, both say the same.
    """
    seen = detections[(detections["milestone"] == "suspected") & (detections["outcome"] == "detected")]
    table = (
        seen.groupby(["engine", "fault", "cause"], sort=True)["duration_s"]
        .agg(size="size", median=lambda taken: taken.quantile(0.5, interpolation="lower"))
        .reset_index()
        .sort_values(["engine", "fault", "size"], ascending=[True, True, False], kind="stable")
    )
    return frame("detections_by_layer", table.itertuples(index=False, name=None))


def _groups(detections: pd.DataFrame, by: list[str]) -> Iterator[tuple[tuple[str, ...], pd.DataFrame]]:
    for key, group in detections.groupby(by, sort=False):
        assert isinstance(key, tuple)
        yield tuple(map(str, key)), group
