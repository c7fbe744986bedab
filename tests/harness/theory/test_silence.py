"""Silence that may heal: the corner where nothing is ever noticed."""

from __future__ import annotations

from reference_server.liveness.heartbeat_policy import LivenessPolicy
from scenarios.distributions import Distribution, Exponential, Lognormal
from tests.harness.theory.quadrature import false_suspicion_per_outage


def test_an_outage_too_short_to_be_told_from_none_is_never_noticed() -> None:
    """Fifteen minutes of patience against outages of 4 s: below what a float can tell, and no error."""
    policy = LivenessPolicy(
        heartbeat_interval=300.0, heartbeat_timeout=30.0, max_failures=4, session_timeout=None
    )
    trips = Distribution(lognormal=Lognormal(median=0.05, sigma=0.5))
    length = Distribution(exponential=Exponential(mean=4.0))
    assert false_suspicion_per_outage(policy, length, round_trip=trips) == 0.0
