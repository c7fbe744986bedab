"""Put a recommendation to the test: run it in under a minute, and put what was measured beside theory.

From a `Recommendation` to a `Scenario`, and from its concluded run directory to a table of checks. Their bounds come
from the laws themselves, so that chance is told apart from a wrong prediction. The network's delays are not reproduced
on loopback; its outages are, stretched until about a third of them are noticed: at their own length hardly any would
be, and nothing would be seen.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from harness.policy.tune.recommend import Recommendation
from harness.real.engine import RealSetup
from harness.run import Outcome, run
from harness.runs.directory import RunDir
from harness.theory.false_suspicions import noticed_share
from harness.theory.law import Law
from harness.theory.predict import predict
from reference_server.errors import Exit
from reference_server.liveness.heartbeat_policy import LivenessPolicy
from scenarios.client_rules import Sessions
from scenarios.clock import SCENARIO_TIME, RunClock
from scenarios.distributions import Distribution, Uniform
from scenarios.faults import Fault
from scenarios.faults.host_crash import DrawnHostCrash, HostCrash
from scenarios.faults.nat_timeout import DrawnNatTimeout, NatTimeout
from scenarios.load import load_scenario
from scenarios.network import Network, Outages
from scenarios.plan import Plan
from scenarios.schema import Scenario

__all__ = ["Verification", "compare_with_prediction", "verification_scenario", "verify"]

_TAIL = 0.0005  # on either side of what chance may make: one false alarm in a thousand checks
_ROUNDING_S = np.array((-1e-3, 1e-3))


def compare_with_prediction(directory: Path) -> pd.DataFrame:
    """The measurement of a verification's run beside its prediction.

    Columns: engine, check, predicted, lo, hi (where the measurement must lie: the law's 99.9 % interval, widened by
    the run's ε), measured, n, verdict (`pass`, `fail`, `unknown`: nothing was there to measure), note.

    Raises:
        RunDirError, ScenarioError, OSError: not a run directory that was concluded.
    """
    run = RunDir(directory)
    scenario, plan = load_scenario(str(run.scenario)), Plan.load(run.plan)
    summary = run.read_json(run.summary)
    engines = [engine for engine in summary["engines"] if engine != "theory"]
    clock = scenario.clock if "real" in engines else SCENARIO_TIME
    (law,) = (
        one.law
        for one in predict(scenario, clock)
        if (one.fault, one.milestone) == (DrawnHostCrash.kind, "suspected")
    )
    assert law is not None  # theory is exact for a host crash under a heartbeat
    rows = []
    for engine in engines:
        epsilon_s = float(summary["epsilon_s"] or 0.0) if engine == "real" else 0.0
        rows += _latency(run, engine, law, epsilon_s)
        rows += _idle_timer(run, plan, engine)
        rows.append(_mistakes(run, scenario, plan, engine, clock))
    columns = ["engine", "check", "predicted", "lo", "hi", "measured", "n", "verdict", "note"]
    return pd.DataFrame(rows, columns=columns)


def _latency(run: RunDir, engine: str, law: Law, epsilon_s: float) -> list[tuple[object, ...]]:
    every = _rows(run, "detections", engine=engine, fault=DrawnHostCrash.kind, milestone="suspected")
    times = np.sort(every.loc[every["outcome"] == "detected", "duration_s"].to_numpy(dtype=float))
    n, all_seen = len(every), len(times) == len(every) > 0
    rows: list[tuple[object, ...]] = []
    for name, quantile in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        # The measured percentile is the r-th of n: its place in the law is Beta(r, n − r + 1).
        rank = max(1, math.ceil(quantile * n - 1e-9))
        places = stats.beta(rank, n - rank + 1).ppf((_TAIL, 1 - _TAIL)) if n else (0.0, 1.0)
        lo, hi = law.quantile(places) + np.array((-epsilon_s, epsilon_s)) + _ROUNDING_S
        measured = float(times[rank - 1]) if rank <= len(times) else float("nan")
        predicted, verdict = float(law.quantile(quantile)), _verdict(lo <= measured <= hi, n)
        rows.append(
            (engine, f"detection {name} (s)", predicted, float(lo), float(hi), measured, n, verdict, "")
        )
    lo, hi = law.lo_s - epsilon_s + _ROUNDING_S[0], law.hi_s + epsilon_s + _ROUNDING_S[1]
    inside = all_seen and bool(lo <= times[0] and times[-1] <= hi)
    slowest = float(times[-1]) if len(times) else float("nan")
    told = f"{n - len(times)} not detected"
    if len(times):
        told += f"; the fastest after {times[0]:.3f} s"
    rows.append((engine, "detection, slowest (s)", law.hi_s, lo, hi, slowest, n, _verdict(inside, n), told))
    return rows


def _idle_timer(run: RunDir, plan: Plan, engine: str) -> list[tuple[object, ...]]:
    if not any(isinstance(fault.params, DrawnNatTimeout) for fault in plan.faults):
        return []
    rows = _rows(run, "detections", engine=engine, fault=DrawnNatTimeout.kind, milestone="suspected")
    expired = int(rows["injected_at_s"].notna().sum())
    note, verdict = "the heartbeat keeps them alive", _verdict(expired == 0, len(rows))
    return [(engine, "mappings that expired", 0.0, 0.0, 0.0, float(expired), len(rows), verdict, note)]


def _mistakes(
    run: RunDir, scenario: Scenario, plan: Plan, engine: str, clock: RunClock
) -> tuple[object, ...]:
    """Healthy clients thrown out, beside the law of that number given this plan's outages."""
    seen = _rows(run, "false_suspicions", engine=engine)
    count = int(seen["count"].iloc[0])
    once, each = _chances(scenario, plan, clock)
    # Whether a client that was thrown out is back for its next outage is left open: both ends are allowed for.
    lo, hi = _quantile(once, _TAIL), _quantile(each, 1 - _TAIL)
    note, verdict = f"{len(each)} outages of {len(once)} clients", _verdict(lo <= count <= hi, 1)
    return (engine, "healthy clients thrown out", sum(once), lo, hi, float(count), len(each), verdict, note)


def _chances(scenario: Scenario, plan: Plan, clock: RunClock) -> tuple[list[float], list[float]]:
    """Probability to be thrown out: of each client by any of its outages, and of each outage alone.

    Given an outage's length L the phase is all that is random: P = (min(L − W, T, what is left of the run))⁺/T, where
    W is the last retransmission that fits into the patience.
    """
    policy, network = scenario.liveness, scenario.network.seen_at(clock)
    interval_s, patience = policy.interval_s, policy.patience_s
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


def _verdict(holds: bool, n: int) -> str:
    if not n:
        return "unknown"
    return "pass" if holds else "fail"


_NOTICED = 0.35  # share of the stretched outages that is to be noticed
_STRETCHES = np.geomspace(0.01, 1000, 600)
_CRASHES, _BEHIND_NAT = 0.5, 0.1  # shares of the clients; the rest is healthy
_CLEAR_OF_LADDER = 0.15  # of a retransmission, as a logarithm


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
    real_s: float = 40.0,
    setup: RealSetup | None = None,
    progress: Callable[[str, float], None] = lambda _phase, _done: None,
) -> Verification:
    """Run the recommendation, for real by default, and put the measurement beside the prediction.

    Raises:
        CannotRun, RedisUnavailable, ChildDied: as `harness.run.run`.
    """
    scenario = verification_scenario(recommendation, clients=clients, seed=seed, real_s=real_s)
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
    interval_s, patience = policy.interval_s, policy.patience_s
    ramp_s = max(2.0, interval_s / 2)
    at = Distribution(uniform=Uniform(low=interval_s, high=2 * interval_s))
    duration_s = 3 * interval_s + patience + max(3.0, interval_s / 5)
    clock = _clock(policy, (ramp_s + duration_s) / real_s)
    faults: list[Fault] = [HostCrash(kind="host_crash", share=_CRASHES, at=at)]
    if conditions.nat is not None:
        # As early as can be: a mapping that is to expire must have the time for it.
        early = Distribution(uniform=Uniform(low=0.0, high=interval_s))
        nat = conditions.nat
        faults.append(NatTimeout(kind="nat_timeout", share=_BEHIND_NAT, at=early, nat=nat))
    outages, stretch = _stretched(policy, conditions.network, clock, duration_s)
    told = "" if outages is None else f" Outages are {stretch:.3g} times as long as assumed."
    return Scenario(
        name="verify-" + re.sub(r"[^a-z0-9_-]+", "-", conditions.name.lower()),
        description=f"The policy that was recommended for {conditions.name}.{told}",
        seed=seed,
        clients=clients,
        ramp=ramp_s,
        duration=duration_s,
        speedup=clock.speedup,
        liveness=policy,
        # A watcher may be in an outage itself: nobody watches.
        sessions=Sessions(watchers_per_user=0),
        network=Network(outages=outages),  # loopback's own round trip and ladder
        faults=tuple(faults),
    )


def _clock(policy: LivenessPolicy, at_least: float) -> RunClock:
    """The slowest clock, of at least this speedup, whose patience is 15 % away from every retransmission."""
    ladder = np.log(Network().rto_ladder)
    least = max(1, math.ceil(at_least))
    if least == 1:
        return SCENARIO_TIME
    paces = np.arange(least, 2 * least + 2)
    patience = np.log(policy.patience_s / paces)
    clear = np.abs(np.subtract.outer(patience, ladder)).min(axis=1)
    good = np.flatnonzero(clear >= _CLEAR_OF_LADDER)
    return RunClock(float(paces[good[0] if len(good) else int(np.argmax(clear))]))


def _stretched(
    policy: LivenessPolicy, network: Network, clock: RunClock, duration_s: float
) -> tuple[Outages | None, float]:
    """Outages of the network's law, long enough to be noticed and one or two a client; and how much longer."""
    if network.outages is None:
        return None, 1.0
    length = network.outages.length
    way = Network().seen_at(clock)

    def noticed(stretch: float) -> float:
        outages = Outages(every=duration_s, length=length.scaled(stretch))
        seen = way.model_copy(update={"outages": outages})
        return float(noticed_share(policy.interval_s, policy.patience_s, seen))

    shares = np.array([noticed(float(stretch)) for stretch in _STRETCHES])
    stretch = float(_STRETCHES[np.argmin(np.abs(shares - _NOTICED))])
    return Outages(every=1.5 * duration_s, length=length.scaled(stretch)), stretch
