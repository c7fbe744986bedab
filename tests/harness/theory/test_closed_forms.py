"""The vectorised closed forms are theory's own figures, and numeric integrals'."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad

from harness.theory.false_suspicions import (
    dropped_by_idle_timer,
    false_suspicions_by_late_answers,
    false_suspicions_by_outages,
    mean_excess_s,
    noticed_share,
)
from reference_server.liveness.heartbeat_policy import LivenessPolicy
from scenarios.distributions import Distribution, Exponential, Lognormal, Normal, Uniform
from scenarios.network import Nat, Network, Outages
from tests.harness.theory.quadrature import false_suspicion_per_outage, false_suspicions_per_client_day

LENGTHS = {
    "constant": Distribution(constant=9.0),
    "uniform": Distribution(uniform=Uniform(low=3.0, high=40.0)),
    "exponential": Distribution(exponential=Exponential(mean=8.0)),
    "lognormal": Distribution(lognormal=Lognormal(median=6.0, sigma=1.2)),
    "normal": Distribution(normal=Normal(mean=12.0, sd=6.0)),
}
POLICIES = [
    (30.0, 10.0, 3, 30.0),
    (46.0, 7.0, 2, 7.0),
    (25.0, 20.0, 1, 25.0),
    (2.0, 0.5, 4, 1.0),
    (190.0, 25.0, 2, 30.0),
    (5.0, 0.15, 1, 5.0),
    (60.0, 3.0, 5, 3.0),
]


def network(length: Distribution, trip: Distribution) -> Network:
    return Network(round_trip=trip, outages=Outages(every=3600.0, length=length))


def policy(t: float, tau: float, k: int, r: float) -> LivenessPolicy:
    return LivenessPolicy(
        heartbeat_interval=t, heartbeat_timeout=tau, max_failures=k, retry_interval=r, session_timeout=None
    )


@pytest.mark.parametrize("name", LENGTHS)
def test_mean_excess_is_the_integral_of_the_tail(name: str) -> None:
    law = LENGTHS[name]
    for above in (0.0, 0.5, 3.0, 9.0, 20.0, 39.0, 60.0):
        # The tail ends at 1e5 s; the corners of all laws, and ever longer pieces.
        edges = [c for c in (3.0, 9.0, 40.0, 200.0, 1e3, 1e4, 1e5) if c > above]
        pieces = zip([above, *edges], edges, strict=False)
        expected = sum(quad(lambda x: float(1 - law.cdf(x)), a, b)[0] for a, b in pieces)
        assert float(mean_excess_s(law, above)) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_the_far_tail_keeps_its_relative_precision() -> None:
    """Where 1 − cdf has lost every digit."""
    law = LENGTHS["exponential"]
    assert float(mean_excess_s(law, 400.0)) == pytest.approx(8 * math.exp(-50), rel=1e-12)
    heavy = float(mean_excess_s(LENGTHS["lognormal"], 6.0 * math.exp(1.2 * 9)))
    assert 0 < heavy < 1e-12


def midpoint_error(interval_s: float, patience_s: float, way: Network) -> float:
    """h²/24 × the change of the slope, for a cell h of 1/768 of the phase; half as much again for higher orders.

    In false suspicions a day.
    """
    assert way.outages is not None
    law, step = way.outages.length, 1e-4
    outlast_s = max((s for s in way.rto_ladder if s <= patience_s), default=0.0)

    def slope(at_s: float) -> float:
        return float(law.cdf(at_s + step) - law.cdf(at_s)) / step

    change = abs(slope(outlast_s) - slope(outlast_s + interval_s))
    return 1.5 * 86400 / 3600 * (interval_s / 768) ** 2 / 24 * change / interval_s


@pytest.mark.parametrize("name", LENGTHS)
def test_equal_to_theory(name: str) -> None:
    """All policies at once, against theory one by one, within the error of theory's own midpoint rule."""
    way = network(LENGTHS[name], Distribution(constant=0.05))
    t = np.array([p[0] for p in POLICIES])
    patience = np.array([(k - 1) * r + tau for _, tau, k, r in POLICIES])
    found = false_suspicions_by_outages(t, patience, way)
    for one, waits, share in zip(POLICIES, patience.tolist(), found.tolist(), strict=True):
        expected = false_suspicions_per_client_day(policy(*one), way)
        error = midpoint_error(one[0], waits - 0.05, way)
        assert share == pytest.approx(expected, rel=1e-6, abs=1e-12 + error), one


def test_equal_to_theory_with_a_random_round_trip() -> None:
    """Theory takes 24 round trips; over many constant ones it must give what the closed form gives at once.

    The patience lies among the retransmissions, where the round trip decides which one is in time.
    """
    trip = Distribution(lognormal=Lognormal(median=0.3, sigma=0.8))
    tight = policy(20.0, 3.6, 1, 20.0)  # 3.34 s, and 0.26 s for the round trip
    length = LENGTHS["exponential"]
    way = network(length, trip)
    nodes = trip.quantile((np.arange(400) + 0.5) / 400)
    each = [
        false_suspicion_per_outage(
            tight, length, ladder_s=way.rto_ladder, round_trip=Distribution(constant=float(x))
        )
        for x in nodes
    ]
    found = float(noticed_share(20.0, 3.6, way))
    assert min(each) < found < max(each)
    # Both sides of each of the few jumps are at most one node of 400 off.
    assert found == pytest.approx(float(np.mean(each)), abs=3 * max(each) / 400)


def test_patience_below_the_round_trip_drops_everybody() -> None:
    way = Network(round_trip=Distribution(constant=0.2))
    assert false_suspicions_by_late_answers(10.0, np.array([0.1, 0.3]), way) == pytest.approx([8640.0, 0.0])


def test_without_outages_nobody_is_noticed() -> None:
    assert (noticed_share(np.array([1.0, 2.0]), 3.0, Network()) == 0).all()


@pytest.mark.parametrize(
    ("expiry", "per_day"), [("reset", [0.0, 1440.0, 720.0]), ("drop", [0.0, 1080.0, 617.142857])]
)
def test_an_idle_timer_drops_idle_clients_at_every_beat(expiry: str, per_day: list[float]) -> None:
    nat = Nat.model_validate({"idle_timeout": 60.0, "expiry": expiry})
    found = dropped_by_idle_timer(np.array([59.0, 60.0, 120.0]), 20.0, nat)
    assert found == pytest.approx(per_day)
