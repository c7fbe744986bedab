"""Put a recommendation to the test: a scenario that runs it in under a minute, and what it showed beside theory.

From a `Recommendation` to a `Scenario`, and from its run directory to a table. The network's delays are not
reproduced on loopback; its outages are, stretched until about a third of them are noticed, for at their own
length hardly any would be, and nothing would be seen.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from harness.exits import Exit
from harness.theory import patience_s
from harness.tune.accuracy import noticed_share
from harness.tune.compare import compare_with_prediction
from harness.tune.recommend import Recommendation
from reference_server.liveness import LivenessPolicy
from scenarios.client_rules import Sessions
from scenarios.distributions import Distribution, Uniform
from scenarios.fault_kinds import Fault, HostCrash, NatTimeout
from scenarios.network import Network, Outages
from scenarios.schema import Scenario

if TYPE_CHECKING:
    from harness.real.engine import RealSetup
    from harness.run import Outcome

__all__ = ["Verification", "verification_scenario", "verify"]

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
    from harness.run import (
        run,
    )  # starts with engines and reports, which a recommendation alone does not need

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
    interval_s, patience = policy.heartbeat_interval, patience_s(policy)
    if interval_s is None:
        raise ValueError("this policy has no heartbeat: heartbeat_interval is null")
    ramp_s = max(2.0, interval_s / 2)
    at = Distribution(uniform=Uniform(low=interval_s, high=2 * interval_s))
    duration_s = 3 * interval_s + patience + max(3.0, interval_s / 5)
    speedup = _speedup(policy, (ramp_s + duration_s) / real_s)
    faults: list[Fault] = [HostCrash(kind="host_crash", share=_CRASHES, at=at)]
    if conditions.nat is not None:
        # As early as can be: a mapping that is to expire must have the time for it.
        early = Distribution(uniform=Uniform(low=0.0, high=interval_s))
        nat = conditions.nat
        faults.append(NatTimeout(kind="nat_timeout", share=_BEHIND_NAT, at=early, nat=nat))
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
