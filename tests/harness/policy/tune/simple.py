"""The tuner's figures and its choice, written again in the plainest way: loops and numeric integrals, no tables."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from harness.policy.tune.conditions import Conditions, Rules
from harness.policy.tune.requirements import Requirements
from scenarios.network import Network

__all__ = ["Simple", "best_simple", "simple_false_per_day"]


@dataclass(frozen=True)
class Simple:
    """One policy and its figures."""

    interval_s: float
    max_failures: int
    retry_s: float
    timeout_s: float
    p99_s: float
    false_per_day: float
    frames_per_s: float


def simple_false_per_day(
    interval_s: float, patience_s: float, network: Network, forgets_after_s: float = math.inf
) -> float:
    """Midpoint rule over the phase, for a constant round trip."""
    trip_s = network.round_trip.constant
    assert trip_s is not None
    late = 86400 / interval_s if trip_s > patience_s else 0.0
    if network.outages is None:
        return late
    outlast_s = 0.0
    for step in network.rto_ladder:
        if step + trip_s <= patience_s and interval_s + step < forgets_after_s:
            outlast_s = max(outlast_s, step)
    phases = (np.arange(4000) + 0.5) / 4000 * interval_s
    noticed = float(np.mean(1 - network.outages.length.cdf(phases + outlast_s)))
    return 86400 / (network.outages.every + network.outages.length.mean_s) * noticed + late


def best_simple(
    conditions: Conditions,
    requirements: Requirements,
    rules: Rules,
    grid: tuple[tuple[float, ...], tuple[int, ...], tuple[float, ...], tuple[float, ...]],
) -> Simple | None:
    """The cheapest sound policy that keeps detect_p99, false_suspicions and one budget of frames."""
    found: list[Simple] = []
    intervals, failures, timeouts, retries = grid
    for t, k, tau, r in itertools.product(intervals, failures, timeouts, (*retries, 0.0)):
        retry = t if r == 0 else r
        if not tau <= retry <= t or (r == t) or (k == 1 and r) or k < requirements.min_failures:
            continue
        if conditions.nat and t > conditions.nat.idle_timeout * (1 - rules.nat_margin):
            continue
        trip_s = conditions.network.round_trip.constant
        assert trip_s is not None
        if trip_s > tau - rules.lag_s:
            continue
        patience = (k - 1) * retry + tau
        one = Simple(
            t,
            k,
            retry,
            tau,
            0.99 * t + patience,
            simple_false_per_day(
                t,
                patience - rules.lag_s,
                conditions.network,
                conditions.nat.idle_timeout if conditions.nat else math.inf,
            ),
            2000 / t,
        )
        if requirements.detect_p99 and one.p99_s > requirements.detect_p99 + 1e-9:
            continue
        if one.false_per_day * requirements.headroom > requirements.false_suspicions:
            continue
        if requirements.budget and one.frames_per_s > requirements.budget[0].per_s + 1e-9:
            continue
        found.append(one)
    return min(found, key=lambda s: (s.frames_per_s, s.false_per_day), default=None)
