"""Check a recommendation by simulation: what the closed forms predict beside what the vectorised fleet shows.

From a `Recommendation` to a `SimulationCheck`, for the policy and its neighbours on the Pareto front: false suspicions
of healthy clients a client-day, and p50 and p99 of the detection of a silent death. Nothing real runs (`verify.py` does
that), and costs and TTLs are not looked at.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from harness.measure.health import poisson_interval
from harness.policy.tune.conditions import Conditions, Rules
from harness.policy.tune.recommend import Recommendation, policy_of
from harness.policy.tune.search import policy_row, with_figures
from harness.simulated.fleet import FleetError, FleetResult, Outcome, run_fleet
from harness.theory.law import Law
from harness.theory.predict import predict
from reference_server.liveness.heartbeat_policy import LivenessPolicy
from scenarios.distributions import Distribution, Uniform
from scenarios.faults.host_crash import HostCrash
from scenarios.schema import Scenario

__all__ = [
    "CONFIDENCE",
    "FALSE_SUSPICIONS",
    "SimulationCheck",
    "check_by_simulation",
    "compare",
    "neighbours",
]

CONFIDENCE = 0.9999
"""Of each interval: one tune in a thousand is contradicted by chance."""

FALSE_SUSPICIONS = "false suspicions a client-day"

_DAY_S = 86400.0
_TRIAL, _MOST = 2_500, 25_000  # clients of the first batch, and of the largest; each for one day
_CRASHED = 20_000  # clients that die
_ROUNDING_S = 1e-3  # of theory's laws, which are tables


@dataclass(frozen=True, slots=True, eq=False)
class SimulationCheck:
    """What the fleet says of a recommendation.

    Attributes:
        table: one row a policy and figure. Columns: policy (`recommended`, `next cheaper`, `next faster`), interval_s,
            max_failures, retry_s, timeout_s, figure, predicted, simulated, lo, hi (exact interval of the simulated
            figure), n (false suspicions, or deaths), agrees (the interval contains the prediction).
        client_days: simulated, of all healthy clients together.
        notes: what the fleet does not know; one sentence each.
    """

    table: pd.DataFrame
    client_days: float
    notes: tuple[str, ...]

    @property
    def contradicted(self) -> tuple[str, ...]:
        """The policies with a figure that contradicts its prediction, by name."""
        return tuple(self.table.loc[~self.table["agrees"].astype(bool), "policy"].unique())

    @property
    def agrees(self) -> bool:
        """Whether nothing contradicts the prediction of the recommended policy; a neighbour's is only told."""
        return "recommended" not in self.contradicted


def check_by_simulation(
    recommendation: Recommendation,
    *,
    client_days: float = 1e6,
    at_most_s: float = 10.0,
    seed: int = 1,
    progress: Callable[[str, float], None] = lambda _phase, _done: None,
) -> SimulationCheck:
    """Simulate a recommended policy and its neighbours with the fleet.

    The first batch of clients is small and tells how fast the machine is; the next are as large as fits into the time
    that is left. So the same seed gives the same numbers only where ``client_days`` ends the batches. The prediction
    leaves out `Rules.lag_s`, which the fleet has not.

    Args:
        recommendation: as `recommend` gives it.
        client_days: of healthy clients, in all.
        at_most_s: a batch that would end later by the measured speed is not begun, seconds by the wall clock; each
            policy has the first batch.
        seed: of all draws.
        progress: told the phase and how much of it is done, 0 to 1.
    """
    began_s = time.monotonic()
    conditions, rules = recommendation.conditions, replace(recommendation.rules, lag_s=0.0)
    # A box that closes both sides ends as many connections as one that resets: the fleet knows the latter.
    nat = conditions.nat
    if nat is not None and nat.expiry == "close":
        nat = nat.model_copy(update={"expiry": "reset"})
    network = conditions.network.model_copy(update={"nat": nat})
    told, tables = list(conditions.not_simulated), []
    healthy: dict[str, list[FleetResult]] = {}
    crashed: dict[str, FleetResult] = {}
    policies = neighbours(recommendation)
    for n, (name, policy) in enumerate(policies.items()):
        rng = np.random.default_rng([seed, n])
        try:
            crashed[name] = run_fleet(
                policy,
                conditions.network,
                clients=_CRASHED,
                duration_s=_lasts_s(policy),
                rng=rng,
                fault=_crash(policy),
            )
            healthy[name] = []
        except FleetError as error:
            told.append(f"not simulated: {name}: {error}")
    days, asked, round_, clients = 0.0, 0, 0, _TRIAL
    while healthy and clients >= _TRIAL:
        round_began_s = time.monotonic()
        for n, name in enumerate(healthy):
            rng = np.random.default_rng([seed, n, round_])
            batch = run_fleet(policies[name], network, clients=clients, duration_s=_DAY_S, rng=rng)
            healthy[name].append(batch)
            days += batch.healthy_client_s / _DAY_S
            spent = (time.monotonic() - began_s) / at_most_s
            progress("simulate", min(1.0, max(days / client_days, spent)))
        now_s = time.monotonic()
        asked += clients * len(healthy)
        fits = clients * (began_s + at_most_s - now_s) / (now_s - round_began_s)
        clients = int(min(_MOST, fits, (client_days - asked) / len(healthy)))
        round_ += 1
    progress("simulate", 1.0)
    for name, batches in healthy.items():
        policy = policies[name]
        merged = FleetResult.merged(batches)
        found = compare(policy, conditions, rules, merged, crashed[name])
        parameters = policy_row(policy).drop(columns="patience_s").iloc[0]
        for column, (key, value) in enumerate({"policy": name, **parameters}.items()):
            found.insert(column, str(key), value)
        tables.append(found)
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["policy", "agrees"])
    return SimulationCheck(table, days, tuple(dict.fromkeys(told)))


def neighbours(recommendation: Recommendation) -> Mapping[str, LivenessPolicy]:
    """The recommended policy, and those beside it on the Pareto front where there are any.

    `next cheaper` has the next fewer frames, `next faster` the next lower p99 of the detection; of several the one
    closest in the other figure.
    """
    r, figures = recommendation, recommendation.figures
    cost, p99 = figures["frames_per_s"], figures["detect_p99_s"]
    cheaper = r.pareto[r.pareto["frames_per_s"] < cost]
    faster = r.pareto[r.pareto["detect_p99_s"] < p99]
    found = {"recommended": r.policy}
    if len(cheaper):
        same = cheaper[cheaper["frames_per_s"] == cheaper["frames_per_s"].max()]
        row = same.loc[(same["detect_p99_s"] - p99).abs().idxmin()]
        found["next cheaper"] = policy_of(row, r.requirements, r.rules)
    if len(faster):
        same = faster[faster["detect_p99_s"] == faster["detect_p99_s"].max()]
        row = same.loc[(same["frames_per_s"] - cost).abs().idxmin()]
        found["next faster"] = policy_of(row, r.requirements, r.rules)
    return found


def compare(
    policy: LivenessPolicy, conditions: Conditions, rules: Rules, healthy: FleetResult, crashed: FleetResult
) -> pd.DataFrame:
    """Theory's figures of a policy beside a fleet's: columns figure, predicted, simulated, lo, hi, n, agrees.

    Args:
        policy: that theory is asked about.
        conditions: its network and idle timer.
        rules: ``lag_s`` counts as in the prediction.
        healthy: clients without a fault, each for one day after a ramp of T.
        crashed: clients that all die.
    """
    latency = _latency_law(policy, conditions)
    rows = [_false_suspicions(policy, conditions, rules, healthy)]
    times_s = np.where(crashed.outcome == Outcome.DETECTED, crashed.duration_s, np.inf)
    for name, quantile in (("p50", 0.5), ("p99", 0.99)):
        test: Any = stats.quantile_test(times_s, p=quantile)
        interval = test.confidence_interval(CONFIDENCE)
        lo, hi = float(interval.low), float(interval.high)
        seen = float(np.quantile(times_s, quantile, method="inverted_cdf"))
        expected = float(latency.quantile(quantile))
        agrees = bool(lo - _ROUNDING_S <= expected <= hi + _ROUNDING_S)
        rows.append((f"detection {name} (s)", expected, seen, lo, hi, len(times_s), agrees))
    columns = ["figure", "predicted", "simulated", "lo", "hi", "n", "agrees"]
    return pd.DataFrame(rows, columns=columns)


def _false_suspicions(
    policy: LivenessPolicy, conditions: Conditions, rules: Rules, healthy: FleetResult
) -> tuple[object, ...]:
    """Suspicions, and connections that an idle timer ended, which the prediction counts too.

    Theory's rate is of clients that are never away. So the rate of the connected time, without the run's edges where
    none can be seen, bounds it from above, and that of the whole time from below.
    """
    figures = with_figures(policy_row(policy), conditions, rules).iloc[0]
    expected, interval_s = float(figures["false_per_client_day"]), float(figures["interval_s"])
    count = healthy.false_suspicions + healthy.healthy_resets
    connected_s, edges_s = healthy.healthy_client_s, 2 * interval_s + policy.patience_s
    lo, _ = poisson_interval(count, healthy.clients * (1 + interval_s / _DAY_S), CONFIDENCE)
    _, hi = poisson_interval(count, connected_s / _DAY_S - healthy.clients * edges_s / _DAY_S, CONFIDENCE)
    simulated = count / connected_s * _DAY_S
    return FALSE_SUSPICIONS, expected, simulated, lo, hi, count, bool(lo <= expected <= hi)


def _crash(policy: LivenessPolicy) -> HostCrash:
    at = Uniform(low=policy.interval_s, high=2 * policy.interval_s)
    return HostCrash(kind="host_crash", share=1.0, at=Distribution(uniform=at))


def _lasts_s(policy: LivenessPolicy) -> float:
    """Long enough for every death to be noticed, seconds after the ramp."""
    return 4 * policy.interval_s + policy.patience_s + 60.0


def _latency_law(policy: LivenessPolicy, conditions: Conditions) -> Law:
    """Theory's law of a silent death, round trips and kernel included."""
    network = conditions.network.model_copy(update={"outages": None})
    scenario = Scenario(
        name="check",
        clients=1,
        ramp=policy.interval_s,
        duration=_lasts_s(policy),
        liveness=policy,
        network=network,
        faults=(_crash(policy),),
    )
    (law,) = (one.law for one in predict(scenario) if one.milestone == "suspected")
    assert law is not None  # exact for a host crash under a heartbeat
    return law
