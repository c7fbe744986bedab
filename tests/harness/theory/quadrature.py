"""False suspicions by quadrature over the phase, one policy at a time: the oracle of the closed forms.

It goes another way than `harness.theory.false_suspicions`: through the law of a silent death that heals. It also
knows the idle limit and TCP_USER_TIMEOUT.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.theory.law import Law
from harness.theory.silence import Healing, race, silent_death
from harness.theory.tcp import user_timeout_fires_s
from reference_server.liveness.heartbeat_policy import LivenessPolicy
from scenarios.distributions import Distribution
from scenarios.network import Network

_DAY_S = 86400.0
_NO_DELAY = Distribution(constant=0.0)


def false_suspicion_per_outage(
    policy: LivenessPolicy,
    length: Distribution,
    *,
    ladder_s: Sequence[float] | None = None,
    round_trip: Distribution = _NO_DELAY,
) -> float:
    """Probability that one outage makes the gateway drop a healthy client; any retry_interval R.

    The outage starts at a uniform phase, swallows the first ping within it, and is noticed unless the ping
    gets through before (k−1)R + τ (or the idle limit) is over: at the first entry of ``ladder_s`` after the
    healing, plus a round trip. ``ladder_s`` None: the moment it heals, as by a datagram sender that retries
    all the time; a lower bound. Source: RFC 6298 back-off; the quadrature of `silence.py`.

    Raises:
        ValueError: the policy has no heartbeat.
    """
    trip = Law.of(round_trip)
    gives_up_s = policy.tcp_user_timeout
    if gives_up_s is not None and ladder_s is not None:
        gives_up_s = user_timeout_fires_s(gives_up_s, ladder_s)
    stack = race(policy, trip, gives_up_s)
    assert policy.heartbeat_interval is not None  # `race` has looked
    healing = Healing(length, ladder_s)
    return silent_death(policy.heartbeat_interval, trip, stack.law, healing).mass


def false_suspicions_per_client_day(policy: LivenessPolicy, network: Network) -> float:
    """False suspicions of one client a day by the network's outages; 0 without outages.

    Renewal rate: an outage every ``every`` + its mean length, each one a suspicion with
    `false_suspicion_per_outage`. Leaves out that a client is away for a moment after each suspicion.
    Source: the renewal-reward theorem (Ross, Stochastic Processes, section 3.6).

    Raises:
        ValueError: the policy has no heartbeat.
    """
    if network.outages is None:
        return 0.0
    cycle_s = network.outages.every + Law.of(network.outages.length).mean_s
    share = false_suspicion_per_outage(
        policy, network.outages.length, ladder_s=network.rto_ladder, round_trip=network.round_trip
    )
    return _DAY_S / cycle_s * share
