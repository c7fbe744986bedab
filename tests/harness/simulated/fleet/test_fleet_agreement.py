"""Fleet against SimPy, and both against theory where it is exact: 208 random policies and networks.

Every case draws a policy (retry intervals below and above T, idle limits and TCP_USER_TIMEOUT that compete with
the heartbeat), round trips (in some cases answers later than the deadline), TCP's ladder, and a fault or frequent
outages, half of these with heavy-tailed lengths. Half of the cases have outages.

The p-values of 16 cases make one family: Holm's step-down procedure (Holm 1979, Scandinavian Journal of
Statistics 6), valid whatever their dependence. The 13 families share a family-wise error of 1 %. The seeds are
fixed, so the outcome is too: a failure names the seeds, and `random_case(seed, clients=CLIENTS)` is the case.

* shares (detected, recovered): Fisher's exact test of two samples, the exact binomial test against theory;
* latencies, times of false suspicions, healthy time of a client: Kolmogorov–Smirnov, which ties make
  conservative; false suspicions of a client: Mann–Whitney with ties.

Theory is exact for silent deaths with round trips far below the deadline: for detection and for a cut that
heals, which is what one outage is. For outages that follow each other closely there is none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
from scipy import stats

from harness.simulated.network import give_up_s
from harness.theory.detectors import nat_prevented, nat_reset
from harness.theory.law import Law
from harness.theory.silence import Healing, race, silent_death
from harness.theory.tcp import user_timeout_fires_s
from reference_server.liveness.heartbeat_policy import LivenessPolicy
from scenarios.distributions import Distribution
from scenarios.faults.frozen import Frozen
from scenarios.faults.nat_timeout import NatTimeout
from scenarios.faults.network_cut import NetworkCut
from tests.harness.simulated.fleet.fleet_cases import Case, Observed, fleet_of, random_case, simpy_of

CASES, FAMILY, CLIENTS, FLEET = 208, 16, 120, 1000
FAMILY_ERROR = 0.01 * FAMILY / CASES
_EQUAL_S = 1e-6


@dataclass(frozen=True)
class Comparison:
    case: Case
    what: str
    p: float


def rejected(comparisons: list[Comparison]) -> list[Comparison]:
    """Holm's step-down procedure."""
    ordered = sorted(comparisons, key=lambda comparison: comparison.p)
    for n, comparison in enumerate(ordered):
        if comparison.p > FAMILY_ERROR / (len(ordered) - n):
            return ordered[:n]
    return ordered


def two_samples(case: Case, a: Observed, b: Observed) -> list[Comparison]:
    if case.fault is not None:
        shares = [("detected", len(a.detected_s), len(b.detected_s))]
        shares.append(("recovered", a.recovered, b.recovered))
        found = [
            Comparison(case, f"{what}: {i} of {a.faults}, {j} of {b.faults}", p)
            for what, i, j in shares
            for p in [_fisher(i, a.faults - i, j, b.faults - j)]
        ]
        return found + _same_law(case, "latency", a.detected_s, b.detected_s)
    both = np.concatenate((a.mistakes, b.mistakes))
    found = _same_law(case, "false suspicion at", a.mistake_s, b.mistake_s)
    found += _same_law(case, "healthy time", a.healthy_s, b.healthy_s)
    if both.min() < both.max():
        ranks = stats.mannwhitneyu(a.mistakes, b.mistakes, method="asymptotic")
        what = f"false suspicions a client: {a.mistakes.mean():g}, {b.mistakes.mean():g}"
        found.append(Comparison(case, what, float(ranks.pvalue)))
    return found


def _fisher(*table: int) -> float:
    return float(stats.fisher_exact(np.array(table).reshape(2, 2)).pvalue)


def _same_law(
    case: Case, what: str, a: np.ndarray[tuple[int]], b: np.ndarray[tuple[int]]
) -> list[Comparison]:
    if min(len(a), len(b)) < 5:
        return []  # the shares have said what there is to say
    medians = f"{what}: medians {np.median(a):.6g}, {np.median(b):.6g}"
    if max(np.ptp(a), np.ptp(b)) < _EQUAL_S:  # not random: rounding is all that may differ
        return [Comparison(case, medians, float(abs(a[0] - b[0]) < _EQUAL_S))]
    return [Comparison(case, medians, float(stats.ks_2samp(a, b).pvalue))]


def with_theory(case: Case, law: Law, seen: Observed, engine: str) -> list[Comparison]:
    detected = len(seen.detected_s)
    share = min(1.0, law.mass)
    p = float(stats.binomtest(detected, seen.faults, share).pvalue) if seen.faults else 1.0
    what = f"theory, {engine}: detected {detected} of {seen.faults}, mass {share:g}"
    found = [Comparison(case, what, p)]
    if detected < 5:
        return found
    if law.hi_s - law.lo_s < _EQUAL_S:
        p = float(np.all(np.abs(seen.detected_s - law.lo_s) < _EQUAL_S))
    else:
        given_detected: Any = lambda t: law.cdf(t) / law.mass  # noqa: E731 (the stubs know floats only)
        p = float(stats.kstest(seen.detected_s, given_detected).pvalue)
    median = float(law.quantile(law.mass / 2))
    what = f"theory, {engine}: medians {median:.6g}, {np.median(seen.detected_s):.6g}"
    return [*found, Comparison(case, what, p)]


def theory_of(case: Case) -> Law | None:
    """The law of the latency; None where theory is not exact."""
    policy, network, fault = case.scenario.liveness, case.scenario.network, case.fault
    if fault is None:
        return None
    assert policy.heartbeat_interval is not None
    trip = Law.of(network.round_trip)
    give_up = give_up_s(network.rto_ladder)
    if policy.tcp_user_timeout is not None:
        give_up = user_timeout_fires_s(policy.tcp_user_timeout, network.rto_ladder)
    stack = race(policy, trip, None if isinstance(fault, Frozen) else give_up)
    heals: Distribution | None = None
    match fault:
        case NatTimeout():
            idle_s = fault.nat.idle_timeout
            if nat_prevented(policy.heartbeat_interval, idle_s):
                return None
            if fault.nat.expiry == "reset":
                # The last packet left half a round trip after its ping; the RST has a whole one of its own.
                return nat_reset(policy, idle_s).plus(trip).plus(trip.scaled(-0.5))
            lost = trip.scaled(-0.5).shifted(policy.heartbeat_interval - idle_s)
            return lost.plus(stack.law)
        case NetworkCut(heal_after=heals) | Frozen(thaw_after=heals):
            ladder = network.rto_ladder if isinstance(fault, NetworkCut) else None
            healing = None if heals is None else Healing(heals, ladder)
            return silent_death(policy.heartbeat_interval, trip, stack.law, healing)
        case _:
            return silent_death(policy.heartbeat_interval, trip, stack.law)


@pytest.mark.parametrize("first", range(0, CASES, FAMILY))
def test_fleet_simpy_and_theory_agree(first: int) -> None:
    comparisons: list[Comparison] = []
    bursty = 0
    for seed in range(first, first + FAMILY):
        case = random_case(seed, clients=CLIENTS)
        bursty += case.kind == "outages"
        fleet, simpy = fleet_of(case, clients=FLEET), simpy_of(case)
        comparisons += two_samples(case, simpy, fleet)
        law = theory_of(case)
        if law is not None:
            comparisons += with_theory(case, law, simpy, "SimPy")
            comparisons += with_theory(case, law, fleet, "fleet")
    assert bursty >= FAMILY / 2
    assert len(comparisons) > 3 * FAMILY
    wrong = rejected(comparisons)
    assert not wrong, "\n".join(f"p={w.p:.2g} {w.what} {w.case}" for w in wrong)


def _more_failures(policy: LivenessPolicy) -> LivenessPolicy:
    return policy.model_copy(update={"max_failures": policy.max_failures + 1})


def _later_deadline(share: float, policy: LivenessPolicy) -> LivenessPolicy:
    return policy.model_copy(update={"heartbeat_timeout": policy.heartbeat_timeout * share})


@pytest.mark.parametrize("bent", [_more_failures, partial(_later_deadline, 0.6)], ids=["k+1", "0.6 tau"])
def test_a_fleet_under_another_policy_is_found_out(bent: Callable[[LivenessPolicy], LivenessPolicy]) -> None:
    """The negative control: the same procedure, the fleet under a policy that the scenario does not say.

    Host crashes and outages in which the heartbeat alone decides, and its deadline matters.
    """
    comparisons: list[Comparison] = []
    seeds = {7, 16, 24, 36, 37, 48}
    for seed in seeds:
        case = random_case(seed, clients=CLIENTS)
        comparisons += two_samples(case, simpy_of(case), fleet_of(case, clients=FLEET, policy=bent))
    assert {wrong.case.seed for wrong in rejected(comparisons)} == seeds
