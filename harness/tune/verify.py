"""Put a recommendation to the test: a scenario that runs it in under a minute, and what it showed beside theory.

From a `Recommendation` to a `Scenario`, and from its run directory to a table. The network's delays are not
reproduced on loopback; its outages are, stretched until about a third of them are noticed, for at their own
length hardly any would be, and nothing would be seen.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from harness.exits import Exit
from harness.faults import Plan
from harness.rundir import RunDir
from harness.theory import patience_s
from harness.tune.accuracy import noticed_share
from harness.tune.recommend import Recommendation
from reference_server.liveness import LivenessPolicy
from scenarios.distributions import Distribution, Uniform
from scenarios.load import load_scenario
from scenarios.schema import Fault, HostCrash, NatTimeout, Network, Outages, Scenario, Sessions

if TYPE_CHECKING:
    from harness.real.engine import RealSetup
    from harness.run import Outcome

__all__ = ["Verification", "compare_with_prediction", "verification_scenario", "verify"]

_NOTICED = 0.35  # share of the stretched outages that is to be noticed
_STRETCHES = np.geomspace(0.01, 1000, 600)
_CRASHES, _BEHIND_NAT = 0.5, 0.1  # shares of the clients; the rest is healthy
_CLEAR_OF_LADDER = 0.15  # of a retransmission, as a logarithm
_CONFIDENCE = 0.99


@dataclass(frozen=True, slots=True, eq=False)
class Verification:
    """A recommendation put to the test: what ran, how the run came out, and `compare_with_prediction` of it."""

    scenario: Scenario
    outcome: Outcome
    directory: Path
    table: pd.DataFrame

    @property
    def confirmed(self) -> bool:
        """Whether the run is sound, its engines agree, and nothing measured contradicts the prediction."""
        agreed = self.outcome.exit_code == Exit.GOOD
        return agreed and not (self.table["verdict"] == "fail").any()


def verify(
    recommendation: Recommendation,
    *,
    engines: tuple[str, ...] = ("theory", "simulated", "real"),
    root: Path = Path("runs"),
    clients: int = 300,
    seed: int = 1,
    setup: RealSetup | None = None,
    progress: Callable[[str, float], None] = lambda _phase, _done: None,
) -> Verification:
    """Run the recommendation, for real by default, and put the measurement beside the prediction.

    Raises:
        CannotRun, RedisUnavailable, ChildDied: as `harness.run.run`.
    """
    from harness.run import (
        run,
    )  # starts with engines and reports, which a recommendation alone does not need

    scenario = verification_scenario(recommendation, clients=clients, seed=seed)
    outcome = run(scenario, engines=engines, root=root, setup=setup, progress=progress)
    directory = outcome.report.parent
    return Verification(scenario, outcome, directory, compare_with_prediction(directory))


def verification_scenario(
    recommendation: Recommendation, *, clients: int = 300, seed: int = 1, real_s: float = 40.0
) -> Scenario:
    """A scenario under the recommended policy, fast enough to end within ``real_s`` of real time.

    Half of the clients crash at a uniform phase; a tenth sits behind the idle timer, if there is one; the rest is
    healthy and, if the network has outages, suffers stretched ones. The speedup keeps the policy's patience clear
    of TCP's retransmissions, which do not scale.

    Raises:
        ValueError: the policy has no heartbeat.
    """
    policy, conditions = recommendation.policy, recommendation.conditions
    interval_s, patience = policy.heartbeat_interval, patience_s(policy)
    if interval_s is None:
        raise ValueError("this policy has no heartbeat: heartbeat_interval is null")
    ramp_s = max(2.0, interval_s / 2)
    at = Distribution(uniform=Uniform(low=interval_s, high=2 * interval_s))
    duration_s = 3 * interval_s + patience + max(3.0, interval_s / 5)
    speedup = _speedup(policy, (ramp_s + duration_s) / real_s)
    faults: list[Fault] = [HostCrash(kind="host_crash", share=_CRASHES, at=at)]
    if conditions.nat is not None:
        faults.append(NatTimeout(kind="nat_timeout", share=_BEHIND_NAT, at=at, nat=conditions.nat))
    outages, stretch = _stretched(policy, conditions.network, speedup, duration_s)
    told = "" if outages is None else f" Outages are {stretch:.3g} times as long as assumed."
    return Scenario(
        name="verify-" + re.sub(r"[^a-z0-9_-]+", "-", conditions.name.lower()),
        description=f"The policy that was recommended for {conditions.name}.{told}",
        seed=seed,
        clients=clients,
        ramp=ramp_s,
        duration=duration_s,
        speedup=speedup,
        liveness=policy,
        # A watcher may be in an outage itself: nobody watches.
        sessions=Sessions(watchers_per_user=0),
        network=Network(outages=outages),  # loopback's own round trip and ladder
        faults=tuple(faults),
    )


def compare_with_prediction(directory: Path) -> pd.DataFrame:
    """The measurement of a verification's run beside its prediction.

    Columns: engine, check, predicted, lo, hi (what the measurement may be by chance and by ε), measured, n, verdict
    (`pass`, `fail`, `unknown`: nothing was measured), note. Percentiles: the prediction must lie in the measured
    one's 95 % interval ± ε, or within the scenario's tolerance; counts within their law's 99 % interval.

    Raises:
        RunDirError, ScenarioError, OSError: not a run directory that was concluded.
    """
    run = RunDir(directory)
    scenario, plan = load_scenario(str(run.scenario)), Plan.load(run.plan)
    summary = run.read_json(run.summary)
    engines = [engine for engine in summary["engines"] if engine != "theory"]
    speedup = scenario.speedup if "real" in engines else 1.0
    rows = []
    for engine in engines:
        epsilon_s = float(summary["epsilon_s"] or 0.0) if engine == "real" else 0.0
        rows += _latency(run, scenario, engine, epsilon_s)
        rows += _idle_timer(run, plan, engine)
        rows.append(_mistakes(run, scenario, plan, engine, speedup))
    columns = ["engine", "check", "predicted", "lo", "hi", "measured", "n", "verdict", "note"]
    return pd.DataFrame(rows, columns=columns)


def _speedup(policy: LivenessPolicy, at_least: float) -> float:
    """The smallest speedup of at least this that keeps the patience 15 % away from every retransmission."""
    ladder = np.log(Network().rto_ladder)
    least = max(1, math.ceil(at_least))
    if least == 1:
        return 1.0
    speedups = np.arange(least, 2 * least + 2)
    patience = np.log(patience_s(policy) / speedups)
    clear = np.abs(np.subtract.outer(patience, ladder)).min(axis=1)
    good = np.flatnonzero(clear >= _CLEAR_OF_LADDER)
    return float(speedups[good[0] if len(good) else int(np.argmax(clear))])


def _stretched(
    policy: LivenessPolicy, network: Network, speedup: float, duration_s: float
) -> tuple[Outages | None, float]:
    """Outages of the network's law, long enough to be noticed and one or two a client; and how much longer."""
    if network.outages is None:
        return None, 1.0
    length = network.outages.length
    way = Network().seen_at(speedup)

    def noticed(stretch: float) -> float:
        outages = Outages(every=duration_s, length=length.scaled(stretch))
        seen = way.model_copy(update={"outages": outages})
        return float(noticed_share(policy.heartbeat_interval or 0.0, patience_s(policy), seen))

    shares = np.array([noticed(float(stretch)) for stretch in _STRETCHES])
    stretch = float(_STRETCHES[np.argmin(np.abs(shares - _NOTICED))])
    return Outages(every=1.5 * duration_s, length=length.scaled(stretch)), stretch


def _latency(
    run: RunDir, scenario: Scenario, engine: str, epsilon_s: float
) -> list[tuple[object, ...]]:
    laws = _rows(run, "laws", fault="host_crash", milestone="suspected").iloc[0]
    found = _rows(run, "qos", engine=engine, fault="host_crash", milestone="suspected")
    seen = found.iloc[0]
    n = int(seen["detected"])
    rows: list[tuple[object, ...]] = []
    for name in ("p50", "p95", "p99"):
        predicted, measured = float(laws[f"{name}_s"]), float(seen[f"{name}_s"])
        tolerance = max(epsilon_s, float(getattr(scenario.agreement, name)) * predicted)
        lo = min(measured - tolerance, _or(seen[f"{name}_lo_s"], measured) - epsilon_s)
        hi = max(measured + tolerance, _or(seen[f"{name}_hi_s"], measured) + epsilon_s)
        rows.append((engine, f"detection {name} (s)", predicted, lo, hi, measured, n,
                     _verdict(lo <= predicted <= hi, n), "range: of the measured percentile"))  # fmt: skip
    every = _rows(run, "detections", engine=engine, fault="host_crash", milestone="suspected")
    times = every.loc[every["outcome"] == "detected", "duration_s"].astype(float)
    lo, hi = float(laws["lo_s"]) - epsilon_s, float(laws["hi_s"]) + epsilon_s
    whole = n == len(every) and bool(times.between(lo - 1e-6, hi + 1e-6).all())
    rows.append((engine, "detection, every one in the range (s)", float(laws["hi_s"]), lo, hi,
                 float(times.max()) if n else float("nan"), n, _verdict(whole, len(every)),
                 f"{len(every) - n} not detected; measured: the slowest"))  # fmt: skip
    return rows


def _idle_timer(run: RunDir, plan: Plan, engine: str) -> list[tuple[object, ...]]:
    if not any(fault.kind == "nat_timeout" for fault in plan.faults):
        return []
    rows = _rows(run, "detections", engine=engine, fault="nat_timeout", milestone="suspected")
    lost = int((rows["outcome"] == "detected").sum())
    return [(engine, "clients lost to the idle timer", 0.0, 0.0, 0.0, float(lost), len(rows),
             _verdict(lost == 0, len(rows)), "the heartbeat keeps the mapping alive")]  # fmt: skip


def _mistakes(
    run: RunDir, scenario: Scenario, plan: Plan, engine: str, speedup: float
) -> tuple[object, ...]:
    """Healthy clients thrown out, beside the law of that number given this plan's outages."""
    seen = _rows(run, "false_suspicions", engine=engine)
    count = int(seen["count"].iloc[0])
    once, each = _chances(scenario, plan, speedup)
    tail = (1 - _CONFIDENCE) / 2
    # Whether a client that was thrown out is back for its next outage is left open: both ends are allowed for.
    lo, hi = _quantile(once, tail), _quantile(each, 1 - tail)
    return (engine, "healthy clients thrown out", sum(once), lo, hi, float(count), len(each),
            _verdict(lo <= count <= hi, 1), f"{len(each)} outages of {len(once)} clients")  # fmt: skip


def _chances(scenario: Scenario, plan: Plan, speedup: float) -> tuple[list[float], list[float]]:
    """Probability to be thrown out: of each client by any of its outages, and of each outage alone.

    Given an outage's length L the phase is all that is random: P = (min(L − W, T, what is left of the run))⁺/T, where
    W is the last retransmission that fits into the patience.
    """
    policy, network = scenario.liveness, scenario.network.seen_at(speedup)
    interval_s, patience = policy.heartbeat_interval, patience_s(policy)
    if interval_s is None:
        return [], []
    trip_s = float(network.round_trip.quantile(0.5))
    outlast_s = max((step for step in network.rto_ladder if step <= patience - trip_s), default=0.0)
    each: dict[int, list[float]] = defaultdict(list)
    for outage in plan.outages:
        left_s = plan.horizon_s - outage.at_s - patience
        noticed = min(outage.length_s - outlast_s, interval_s, left_s) / interval_s
        each[outage.client].append(max(0.0, noticed))
    once = [1 - math.prod(1 - p for p in found) for found in each.values()]
    return once, [p for found in each.values() for p in found]


def _quantile(chances: list[float], probability: float) -> float:
    """Quantile of how many of some independent things happen: the Poisson binomial law, by convolution."""
    law = np.ones(1)
    for p in chances:
        law = np.convolve(law, (1 - p, p))
    return float(np.searchsorted(np.cumsum(law), probability - 1e-12))


def _rows(run: RunDir, name: str, **equal: str) -> pd.DataFrame:
    table = pd.read_csv(run.table(name), keep_default_na=False, na_values=[""])
    for column, value in equal.items():
        table = table[table[column] == value]
    return table


def _or(value: float, other: float) -> float:
    return other if math.isnan(value) else float(value)


def _verdict(holds: bool, n: int) -> str:
    if not n:
        return "unknown"
    return "pass" if holds else "fail"
