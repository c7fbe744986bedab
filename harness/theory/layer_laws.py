"""Which layers a policy and a kind of detector have against a death, and when each would speak.

From a policy to laws by cause, for `silence.py` and `fault_laws.py` to race. Seconds. Sources: the rules of
`reference_server.liveness`; what the kernel does is `tcp.py`.

    next look of the gateway ── U ──►  X  ── every T a look ──►
    last beat of the client  ◄── age ── fault ──►  TO after the beat, + sweep
"""

from __future__ import annotations

import math
from itertools import pairwise

from harness.theory.law import Law, mixture
from harness.theory.stack import Layer
from harness.theory.tcp import ladder_give_up_s, tcp_give_up_s, user_timeout_fires_s, user_timeout_late_s
from reference_server.events import Cause
from reference_server.liveness.heartbeat_policy import LivenessPolicy
from reference_server.liveness.kinds import ClientBeats, DetectorKind, Ping, SendErrors, StateCheck
from scenarios.clock import RunClock
from scenarios.network import Network
from scenarios.schema import Scenario

__all__ = [
    "DETECTORS_WITH_LAWS",
    "after_client_beat",
    "after_lost_beat",
    "after_unheard_end",
    "give_up_late_s",
    "gives_up_of",
    "next_look",
    "round_trip_of",
]


DETECTORS_WITH_LAWS = (Ping, SendErrors, ClientBeats, StateCheck)
"""The detectors that the functions below know. What detectors learn is `adaptive_laws.py`."""


def next_look(interval_s: float, gives_up: Law) -> Law:
    """The first look, one every T from the first lost beat on, that finds the socket closed: T·ceil(G/T)."""
    first, last = (math.ceil(t / interval_s) for t in (gives_up.lo_s, gives_up.hi_s))
    looks = [interval_s * n for n in range(first - 1, last + 1)]
    return mixture(
        (float(gives_up.cdf(look) - gives_up.cdf(before)), Law.constant(look))
        for before, look in pairwise(looks)
    )


def after_lost_beat(
    policy: LivenessPolicy, round_trip: Law, gives_up: Law | None, kind: DetectorKind | None = None
) -> dict[str, Law]:
    """By cause: the time from the gateway's first beat that nobody gets, independent of the fault's phase.

    Heartbeat (k−1)R + τ; idle limit TO − T + round trip + Uniform(0, S), for the last answer came T before; the
    kernel's give-up G, or the looks at the socket that find it, where close detection does not.

    Args:
        policy: with a heartbeat.
        round_trip: its law.
        gives_up: G, of the kernel; None: the beats are acknowledged (a frozen client).
        kind: None: ping and deadline.
    """
    interval_s = policy.interval_s
    kind = kind or Ping()
    layers: dict[str, Law] = {}
    if isinstance(kind, Ping):
        layers[Cause.HEARTBEAT] = Law.constant(policy.patience_s)
    if gives_up is not None and policy.close_detection == "all":
        layers[Cause.TCP_TIMEOUT] = gives_up
    elif gives_up is not None:
        look = next_look(interval_s, gives_up)
        swept = gives_up.plus(Law.uniform(0.0, policy.sweep_interval))
        match kind:
            case SendErrors():
                layers[Cause.SEND_ERROR] = look
            case StateCheck(cleans_up=True):
                layers |= {Cause.STATE_CHECK: look, Cause.SWEEP: swept}
    if policy.session_timeout is not None:
        idle = round_trip.plus(Law.uniform(0.0, policy.sweep_interval))
        layers[Cause.SESSION_TIMEOUT] = idle.shifted(policy.session_timeout - interval_s)
    return layers


def after_unheard_end(policy: LivenessPolicy, round_trip: Law, kind: DetectorKind) -> dict[str, Layer]:
    """By cause: the time from an end that the kernel tells and close detection does not act on.

    The socket is closed from then on: the next look finds it, U later; missing answers are counted as ever.
    """
    interval_s = policy.interval_s
    layers: dict[str, Layer] = {}
    match kind:
        case Ping():
            layers[Cause.HEARTBEAT] = Layer(+1, Law.constant(policy.patience_s))
        case SendErrors():
            layers[Cause.SEND_ERROR] = Layer(+1, Law.constant(0.0))
        case StateCheck(cleans_up=True):
            layers[Cause.STATE_CHECK] = Layer(+1, Law.constant(0.0))
            layers[Cause.SWEEP] = Layer(0, Law.uniform(0.0, policy.sweep_interval))
    if policy.session_timeout is not None:
        idle = round_trip.plus(Law.uniform(0.0, policy.sweep_interval))
        layers[Cause.SESSION_TIMEOUT] = Layer(+1, idle.shifted(policy.session_timeout - interval_s))
    return layers


def after_client_beat(policy: LivenessPolicy, round_trip: Law, *, acknowledged: bool) -> dict[str, Layer]:
    """By cause, where the client beats: TO − age + Uniform(0, S), and the kernel's probes of an idle connection.

    The gateway has nothing in flight after the last pong, so TCP's retransmission gives nothing up.

    Args:
        policy: its interval is the client's.
        round_trip: its law.
        acknowledged: by the kernel of a client that is frozen: probes are answered.
    """
    layers: dict[str, Layer] = {}
    one_way = round_trip.scaled(0.5)
    if policy.session_timeout is not None:
        idle = one_way.plus(Law.uniform(0.0, policy.sweep_interval))
        layers[Cause.SESSION_TIMEOUT] = Layer(-1, idle.shifted(policy.session_timeout))
    probes = policy.tcp_keepalive
    if probes is not None and not acknowledged and policy.close_detection == "all":
        layers[Cause.TCP_TIMEOUT] = Layer(-1, one_way.shifted(probes.patience_s))
    return layers


def round_trip_of(scenario: Scenario, clock: RunClock) -> Law:
    """The round trip's law, as the clock of a run sees it."""
    return clock.seen(Law.of(scenario.network.round_trip))


def gives_up_of(scenario: Scenario, clock: RunClock) -> Law:
    """When TCP ends the connection, from the first unacknowledged ping.

    The kernel's own patience is scenario time: a faster run bounds it on each socket, by a user timeout
    of that length, which the kernel counts from its own first retransmission. Its timer is late by up to its
    grain, which does not shrink with the rest.
    """
    user_timeout_s = scenario.liveness.tcp_user_timeout
    if user_timeout_s is None and (clock.is_real_time or scenario.target is not None):
        # Nobody bounds it in a server that is not ours: its kernel takes its time at any speedup.
        fires_s = ladder_give_up_s(scenario.network.seen_at(clock).rto_ladder)
        return Law.uniform(fires_s, fires_s + scenario.network.give_up_lag)
    patience_s = user_timeout_s or tcp_give_up_s()
    fires_s = user_timeout_fires_s(patience_s, scenario.network.seen_at(clock).rto_ladder)
    late_s = give_up_late_s(patience_s, scenario.network, clock) + clock.scenario_s(
        scenario.network.give_up_lag
    )
    return Law.uniform(fires_s, fires_s + late_s)


def give_up_late_s(user_timeout_s: float, network: Network, clock: RunClock) -> float:
    """How late the kernel of a real run may give up, scenario seconds; 0 in real time, where it is next to nothing."""
    if clock.is_real_time:
        return 0.0
    return clock.scenario_s(user_timeout_late_s(clock.real_s(user_timeout_s), network.rto_ladder))
