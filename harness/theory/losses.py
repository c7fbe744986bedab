"""How long a healthy client keeps its connection: idle timers of the middle, limits of both ends, late answers.

From a scenario to the law of the time from connecting to the loss, by who ends it. A loss is more than a false
suspicion: a box that resets or closes, one that ends connections of an age, the client's own limit and the gateway's
idle limit take connections from healthy clients, too. What outages of a client's network cost is a rate apart.
Seconds of scenario time.

    connect ── U ── ping ─── T ─── ping ─── T ─── ping          U uniform in (0, T), or T
                      └── gap ──┘                               lethal where it outlasts the timer N

A box at the client's end sees a ping half a round trip X after it left, and its answer at once: its gaps are
T + (X₂ − X₁)/2. Next to the gateway the answer comes a round trip after the ping: gaps of T − X, or T + X₂ − X₁ where
only answers count. Clients that beat by themselves are the mirror image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np

from harness.theory.adaptive_laws import phi_never_errs
from harness.theory.client_beat_laws import law_of_cells, sweep_phases
from harness.theory.false_suspicions import false_suspicions_by_outages
from harness.theory.law import FloatArray, Law, mixture
from harness.theory.layer_laws import gives_up_of, round_trip_of
from harness.theory.silence import race
from harness.theory.stack import first_of
from reference_server.events import Cause
from reference_server.liveness.kinds import ClientBeats, PhiAkka, PhiCassandra, Ping, Probing
from scenarios.client_rules import TrafficOneWay
from scenarios.clock import SCENARIO_TIME, RunClock
from scenarios.distributions import Distribution
from scenarios.schema import Scenario

__all__ = [
    "Lifetime",
    "LossPrediction",
    "idle_timer_prevented",
    "lifetime",
    "outage_losses_per_day",
    "predict_losses",
    "tied_limits",
]

_TRIPS = 400  # equally likely round trips of a chain of them
_MOST_GAPS = 2000
_PHASES = 48
_STAND_IN = 0.05  # of the late answers: as many that outlast an interval are too many to neglect
_ISOLATED = 0.1  # of the time between two outages: a longer patience often meets the next one
_TIED_S = 0.5  # real seconds by which an end may be late, with all that is on its way
_RARE = 1e-9  # of a loss by the run's end: nobody will see one
_SWEEP_SHARED = "the phase of the sweep is one for the whole run"


@dataclass(frozen=True, slots=True)
class LossPrediction:
    """One way in which healthy clients lose their connection.

    Attributes:
        author: who ends it: gateway, middle or client.
        cause: the layer that tells.
        lifetime: law of the time from connecting to the loss, of mass below 1 where some are never lost; None: not
            known.
        note: a remark, or why there is no law.
        shared: what random thing all connections share; empty: they are independent.
        mixed: other layers than ``cause`` tell, too.
    """

    author: str
    cause: str
    lifetime: Law | None
    note: str = ""
    shared: str = ""
    mixed: bool = False

    @property
    def by(self) -> str:
        """Who ends it, as healthy connections are counted: the author, or the gateway's cause; empty: it varies."""
        if self.author != "gateway":
            return self.author
        return "" if self.mixed else self.cause


class Lifetime(NamedTuple):
    """The first loss of any kind; fields as in `LossPrediction`.

    ``parts``: the time to a loss by each (`LossPrediction.by`), if no other came first; None: not known which.
    """

    law: Law | None
    author: str
    cause: str
    note: str
    shared: str
    parts: Mapping[str, Law] | None = None


class _Gap(NamedTuple):
    """The first gap that outlasts a limit: the packet before it and the packet after it, seconds from connecting."""

    last: Law
    next: Law


class _Unknown(Exception):
    """Why theory has no law."""


_Way = Callable[[Scenario, RunClock], LossPrediction]


def lifetime(scenario: Scenario, clock: RunClock = SCENARIO_TIME) -> Lifetime:
    """The law of a healthy connection's whole life, outages apart; None where one of the ways to lose it has none."""
    ways = predict_losses(scenario, clock)
    for way in ways:
        if way.lifetime is None:
            return Lifetime(None, "", "", way.note, "")
    real = sorted((way for way in ways if way.lifetime and way.lifetime.mass), key=lambda way: _of(way).lo_s)
    if not real:
        return Lifetime(Law.never(), "", "", "; ".join(way.note for way in ways if way.note), "", {})
    first, rest = real[0], real[1:]
    law = _of(first)
    if law.mass > 1 - _RARE and all(law.hi_s < _of(way).lo_s for way in rest):
        rest = []
    if any(_of(way).lo_s != _of(way).hi_s for way in rest):
        return Lifetime(None, "", "", "several limits may end a healthy connection first", "")
    racing = {str(n): way for n, way in enumerate((first, *rest))}  # two ways may have the same cause
    stack = first_of({n: _of(way) for n, way in racing.items()})
    wins = racing[max(stack.wins, key=lambda n: stack.wins[n])]
    notes = dict.fromkeys(way.note for way in (first, *rest) if way.note)
    parts = _parts(first, rest)
    if parts is None:
        notes["several layers of the gateway race: theory does not tell which"] = None
    return Lifetime(stack.law, wins.author, wins.cause, "; ".join(notes), first.shared, parts)


def _parts(first: LossPrediction, rest: Sequence[LossPrediction]) -> dict[str, Law] | None:
    """Who ends how many by when, of a way and of others that end all connections at a certain age."""
    if any(way.by == "" for way in (first, *rest)):
        return None
    if not rest:
        return {first.by: _of(first)}
    sure = min(rest, key=lambda way: _of(way).lo_s)
    end_s, law = _of(sure).lo_s, _of(first)
    before = law.within(-math.inf, end_s)
    later = Law.sides(np.array([end_s]), np.array([0.0]), np.array([1 - before.mass]))
    if first.by == sure.by:
        return {first.by: mixture([(1.0, before), (1.0, later)])}
    return {way.by: part for way, part in ((first, before), (sure, later)) if part.mass > _RARE}


def tied_limits(scenario: Scenario, clock: RunClock = SCENARIO_TIME) -> str:
    """Why it is a matter of lag who ends a silent connection first: limits that end together. Empty: they do not."""
    policy, network = scenario.liveness, scenario.network
    interval_s = _interval(scenario)
    limits = {
        "reconnect.idle_limit": scenario.reconnect.idle_limit,
        "session_timeout": policy.session_timeout,
        "the heartbeat": None if interval_s is None else interval_s + policy.patience_s,
        "network.nat": network.nat.idle_timeout if network.nat else None,
        "network.max_age": network.max_age,
    }
    apart_s = clock.scenario_s(_TIED_S)
    for (one, a_s), (other, b_s) in combinations(limits.items(), 2):
        if a_s is not None and b_s is not None and abs(a_s - b_s) <= apart_s:
            return f"{one} and {other} end together"
    return ""


def _of(way: LossPrediction) -> Law:
    assert way.lifetime is not None
    return way.lifetime


def predict_losses(scenario: Scenario, clock: RunClock = SCENARIO_TIME) -> list[LossPrediction]:
    """Predict each way in which this scenario's healthy clients lose their connections; outages are apart.

    Args:
        scenario: its policy, middle, traffic and limits.
        clock: of the run to compare with, as for `predict`.
    """
    return [
        _tried(author, cause, predicted, scenario, clock)
        for author, cause, predicted in (
            ("gateway", Cause.HEARTBEAT, _by_the_detector),
            ("gateway", Cause.SESSION_TIMEOUT, _by_the_idle_limit),
            ("client", Cause.CLIENT_LIMIT, _by_the_client),
            ("middle", "", _by_the_middle),
            ("middle", Cause.TCP_FIN, _by_age),
        )
    ]


def _tried(author: str, cause: str, predicted: _Way, scenario: Scenario, clock: RunClock) -> LossPrediction:
    unknown = [
        *(["incidents"] if scenario.incidents else []),
        *(["stalls"] if scenario.gateway.stalls else []),
        *(["traffic.service"] if scenario.traffic.service != Distribution(constant=0.0) else []),
    ]
    policy = scenario.liveness
    if (
        policy.when_full == "evict"
        and policy.max_sessions is not None
        and policy.max_sessions < scenario.clients
    ):
        unknown.append("max_sessions")
    if unknown:
        return LossPrediction(author, cause, None, f"no law for {', '.join(unknown)}")
    try:
        return predicted(scenario, clock)
    except _Unknown as why:
        return LossPrediction(author, cause, None, str(why))


# -- one way each --------------------------------------------------------------------------------------


def _by_the_detector(scenario: Scenario, clock: RunClock) -> LossPrediction:
    """By answers that take longer than the whole patience: each ping's own answer decides, for TCP keeps the order."""
    policy, kind, trip = scenario.liveness, scenario.detector, round_trip_of(scenario, clock)
    way = LossPrediction("gateway", Cause.HEARTBEAT, Law.never())
    if policy.heartbeat_interval is None:
        return way
    if isinstance(kind, PhiAkka | PhiCassandra):
        if scenario.traffic.to_gateway is not None:
            raise _Unknown("φ learns from application frames, too")
        if not phi_never_errs(kind, policy.interval_s, trip):
            raise _Unknown("φ may reach its threshold between two beats of a healthy client")
        return way
    if isinstance(kind, Probing):
        if scenario.network.nat is not None or trip.hi_s > policy.max_failures * policy.heartbeat_timeout:
            raise _Unknown("what a probing heartbeat has learnt of its network decides")
        return way
    late = 1 - float(trip.cdf(policy.patience_s))
    gaps = min(_MOST_GAPS, math.ceil(scenario.horizon_s / policy.interval_s))
    if not isinstance(kind, Ping) or late * gaps < _RARE:
        return way
    if scenario.traffic.to_gateway is not None and policy.data_counts:
        raise _Unknown("application frames stand in for late answers")
    if 1 - float(trip.cdf(policy.interval_s)) > _STAND_IN * late:
        raise _Unknown("the answer to an older ping stands in for a late one")
    first = _first_packet(scenario).shifted(policy.patience_s)
    parts = ((late * (1 - late) ** n, first.shifted(n * policy.interval_s)) for n in range(gaps))
    return LossPrediction("gateway", Cause.HEARTBEAT, mixture(parts))


def _by_the_idle_limit(scenario: Scenario, clock: RunClock) -> LossPrediction:
    """By the gateway's idle limit: nothing comes for TO, to the next sweep."""
    policy, trip = scenario.liveness, round_trip_of(scenario, clock)
    way = LossPrediction("gateway", Cause.SESSION_TIMEOUT, Law.never())
    limit_s, interval_s = policy.session_timeout, _interval(scenario)
    data = scenario.traffic.to_gateway if policy.data_counts else None
    if limit_s is None or (data is not None and Law.of(data.every).hi_s < limit_s):
        return way
    spread_s = trip.hi_s - trip.lo_s
    if isinstance(scenario.detector, Probing) and interval_s is not None:
        if limit_s < scenario.detector.max_interval + spread_s:
            raise _Unknown("the idle limit may be below a probed interval")
        return way
    if interval_s is not None and interval_s + spread_s <= limit_s:
        return way
    if data is not None:
        raise _Unknown("application frames come more and less often than the idle limit")
    if interval_s is not None and interval_s - spread_s <= limit_s:
        raise _Unknown("round trips decide which gap between two frames outlasts the idle limit")
    law = _swept(_first_packet(scenario), interval_s, limit_s, policy.sweep_interval, scenario.horizon_s)
    return LossPrediction("gateway", Cause.SESSION_TIMEOUT, law, shared=_SWEEP_SHARED)


def _by_the_client(scenario: Scenario, clock: RunClock) -> LossPrediction:
    """By the client's own limit: it hears nothing for so long, and reconnects."""
    limit_s = scenario.reconnect.idle_limit
    way = LossPrediction("client", Cause.CLIENT_LIMIT, Law.never())
    traffic = scenario.traffic.to_client
    if limit_s is None or (traffic is not None and Law.of(traffic.every).hi_s < limit_s):
        return way
    interval_s, trip = _interval(scenario), round_trip_of(scenario, clock)
    if isinstance(scenario.detector, Probing) and interval_s is not None:
        if limit_s > scenario.detector.max_interval + trip.hi_s:
            return way
        raise _Unknown("the client's limit may be below a probed interval")
    if interval_s is not None and abs(limit_s - interval_s) <= trip.hi_s and limit_s != interval_s:
        raise _Unknown("round trips decide which gap between two frames outlasts the client's limit")
    if interval_s is not None and limit_s > interval_s:
        return way
    if traffic is not None:
        raise _Unknown("application frames come more and less often than the client's limit")
    if _watchers_are_told(scenario):
        raise _Unknown("a watcher hears of others, too")
    if interval_s is None:
        law = Law.constant(limit_s)
    else:
        law = _first_gap(scenario, clock, limit_s, 0.5).last.shifted(limit_s)
    return LossPrediction("client", Cause.CLIENT_LIMIT, law)


def _by_age(scenario: Scenario, clock: RunClock) -> LossPrediction:
    """By a box that closes both sides of a connection of a certain age."""
    age_s = scenario.network.max_age
    law = Law.never() if age_s is None else Law.constant(age_s)
    return LossPrediction("middle", Cause.TCP_FIN, law)


def _by_the_middle(scenario: Scenario, clock: RunClock) -> LossPrediction:
    """By an idle timer on the way; where it drops silently, it is the gateway (or nobody) who notices."""
    nat, policy, trip = scenario.network.nat, scenario.liveness, round_trip_of(scenario, clock)
    way = LossPrediction("middle", Cause.TCP_RESET, Law.never())
    if nat is None:
        return way
    limit_s = nat.idle_timeout
    interval_s = _interval(scenario)
    if isinstance(scenario.detector, Probing) and interval_s is not None:
        raise _Unknown("a probing heartbeat looks for the idle timer")
    if idle_timer_prevented(scenario, clock):
        return way
    counted = interval_s is not None and not (nat.counts == "data" and scenario.detector.protocol_ping)
    traffic, probes = _counted_traffic(scenario), policy.tcp_keepalive if nat.counts == "any" else None
    if traffic or (probes is not None and probes.idle <= limit_s + trip.hi_s):
        raise _Unknown("application frames or probes come more and less often than the idle timer allows")
    if _watchers_are_told(scenario) and (nat.counts, nat.expiry) != ("to_gateway", "close"):
        raise _Unknown("what watchers are told restarts the idle timer, too")
    if counted:
        gap = _first_gap(scenario, clock, limit_s, _coefficient(scenario))
    else:
        gap = _Gap(Law.constant(0.0), _next_uncounted(scenario, limit_s))
    if nat.expiry == "close":
        return LossPrediction("middle", Cause.TCP_FIN, gap.last.shifted(limit_s))
    if nat.expiry == "reset":
        back = 0.5 if isinstance(scenario.detector, ClientBeats) else 1.0
        return LossPrediction(
            "middle", Cause.TCP_RESET, gap.next.shifted(back * trip.mean_s if nat.at == "client" else 0.0)
        )
    return _silenced(scenario, clock, gap, counted)


def idle_timer_prevented(scenario: Scenario, clock: RunClock) -> bool:
    """Whether something that the middle's idle timer counts always comes in time: heartbeats, frames, or probes."""
    nat, kind, trip = scenario.network.nat, scenario.detector, round_trip_of(scenario, clock)
    if nat is None:
        return True
    every_s = [Law.of(one.every).hi_s for one in _counted_traffic(scenario)]
    if scenario.liveness.tcp_keepalive is not None and nat.counts == "any":
        every_s.append(scenario.liveness.tcp_keepalive.idle)
    interval_s = kind.max_interval if isinstance(kind, Probing) else _interval(scenario)
    if _interval(scenario) is not None and not (nat.counts == "data" and kind.protocol_ping):
        every_s.append(interval_s or 0.0)
    return any(s + trip.hi_s < nat.idle_timeout for s in every_s)


def _counted_traffic(scenario: Scenario) -> list[TrafficOneWay]:
    nat, traffic = scenario.network.nat, scenario.traffic
    assert nat is not None
    directions = {"to_gateway": traffic.to_gateway, "to_client": traffic.to_client}
    return [one for name, one in directions.items() if one and nat.counts in ("any", "data", name)]


def _silenced(scenario: Scenario, clock: RunClock, gap: _Gap, counted: bool) -> LossPrediction:
    """The box drops what comes: the gateway's layers race from the first lost ping, or its idle limit runs out."""
    policy, own_s = scenario.liveness, scenario.reconnect.idle_limit
    if isinstance(scenario.detector, PhiAkka | PhiCassandra):
        raise _Unknown("silence that a middlebox begins: theory has no law of it for φ")
    interval_s = _interval(scenario)
    if isinstance(scenario.detector, ClientBeats) or interval_s is None:
        if own_s is not None:
            raise _Unknown("the idle limits of both ends compete")
        if policy.session_timeout is None or not gap.last.mass:
            return LossPrediction("gateway", Cause.SESSION_TIMEOUT, Law.never())
        if not counted:
            raise _Unknown("frames that the idle timer does not count are heard after it ended")
        swept = Law.uniform(0.0, policy.sweep_interval).shifted(policy.session_timeout)
        return LossPrediction("gateway", Cause.SESSION_TIMEOUT, gap.last.plus(swept))
    trip = round_trip_of(scenario, clock)
    if policy.session_timeout is not None and policy.session_timeout < interval_s:
        raise _Unknown("the idle limit and the idle timer compete")
    stack = race(policy, trip, gives_up_of(scenario, clock), scenario.detector)
    if own_s is not None and own_s <= interval_s + (stack.law.hi_s if stack.law.mass else math.inf):
        raise _Unknown("the client's limit and the gateway's layers compete")
    cause = max(stack.wins, key=lambda name: stack.wins[name], default="")
    mixed = sum(share > _RARE for share in stack.wins.values()) > 1
    return LossPrediction("gateway", cause, gap.next.plus(stack.law), mixed=mixed)


# -- gaps ------------------------------------------------------------------------------------------------


def _interval(scenario: Scenario) -> float | None:
    """T, of whoever beats; None: nobody does."""
    return scenario.liveness.heartbeat_interval


def _watchers_are_told(scenario: Scenario) -> bool:
    """Whether some clients get messages about others, at times that theory does not follow."""
    return bool(scenario.faults) and scenario.sessions.watchers_per_user > 0


def _first_packet(scenario: Scenario) -> Law:
    """From connecting to the first ping or beat."""
    interval_s = _interval(scenario)
    if interval_s is None:
        return Law.never()
    late = scenario.liveness.first_ping == "interval"
    return Law.constant(interval_s) if late else Law.uniform(0.0, interval_s)


def _next_uncounted(scenario: Scenario, after_s: float) -> Law:
    """The first ping that the timer did not count, and that finds it ended."""
    interval_s = _interval(scenario)
    if interval_s is None:
        return Law.never()
    pings = math.ceil(after_s / interval_s)
    first = _first_packet(scenario)
    begin_s = (pings - 1) * interval_s
    return mixture(
        [
            (1.0, first.shifted(begin_s).within(after_s, math.inf)),
            (1.0, first.within(-1.0, after_s - begin_s).shifted(begin_s + interval_s)),
        ]
    )


def _coefficient(scenario: Scenario) -> float | None:
    """c of a gap T + c(X₂ − X₁) between two packets that the box counts; None: a gap of T − X."""
    nat = scenario.network.nat
    assert nat is not None
    beats = isinstance(scenario.detector, ClientBeats)
    near = nat.at == ("gateway" if beats else "client")  # the end of who answers: both packets pass at once
    asks = "to_gateway" if beats else "to_client"
    if near:
        return 0.5
    if nat.counts in ("any", "data"):
        return None
    return 0.0 if nat.counts == asks else 1.0


def _first_gap(scenario: Scenario, clock: RunClock, limit_s: float, c: float | None) -> _Gap:
    """The first gap between packets that outlasts a limit, on the grid of an undisturbed heartbeat."""
    interval_s, first = _interval(scenario), _first_packet(scenario)
    assert interval_s is not None
    gaps = min(_MOST_GAPS, math.ceil(scenario.horizon_s / interval_s))
    lethal = _lethal(round_trip_of(scenario, clock), interval_s - limit_s, c, gaps)
    if first.lo_s == first.hi_s and abs(first.lo_s - limit_s) <= round_trip_of(scenario, clock).hi_s:
        if c is None:
            raise _Unknown("the first ping comes at the very moment at which the idle timer ends")
        first = Law.constant(0.0)  # the gap before the first ping is one like the others
    long, fine = first.within(limit_s, math.inf), first.within(-1.0, limit_s)
    parts = [(float(p), fine.shifted(n * interval_s)) for n, p in enumerate(lethal) if p > 0]
    last = mixture([(long.mass, Law.constant(0.0)), *parts])
    after = mixture([(1.0, long), *((p, law.shifted(interval_s)) for p, law in parts)])
    return _Gap(last, after)


def _lethal(trip: Law, excess_s: float, c: float | None, gaps: int) -> FloatArray:
    """P(gap n is the first to outlast the limit), n = 0, 1, …; T is ``excess_s`` above the limit.

    Equal T and limit, c above 0: a client survives while its round trips keep falling, n gaps with 1/(n + 1)!.

    Raises:
        _Unknown: rounding would decide.
    """
    sure = np.array([1.0 if excess_s > 0 else 0.0])
    spread_s = (trip.hi_s - trip.lo_s) * (1.0 if c is None else c)
    if c is None:
        excess_s -= trip.lo_s  # lethal where the round trip is below T − N
        sure = np.array([1.0 if excess_s > 0 else 0.0])
    if abs(excess_s) < _RARE and spread_s < _RARE:
        raise _Unknown("the next packet comes at the very moment at which the idle timer ends")
    if excess_s >= spread_s or excess_s <= (0.0 if c is None else -spread_s):
        return sure
    if c is None:
        share = float(trip.before(excess_s + trip.lo_s))
        return np.asarray(share * (1 - share) ** np.arange(gaps), dtype=float)
    trips = trip.quantile((np.arange(_TRIPS) + 0.5) / _TRIPS * trip.mass)
    apart = excess_s + c * np.subtract.outer(trips, trips)  # [next, last]
    ends = np.where(np.abs(apart) < 1e-12, 0.5, apart > 0)
    at = np.full(_TRIPS, 1 / _TRIPS)
    found = []
    for _ in range(gaps):
        survives = ((1 - ends) @ at) / _TRIPS
        found.append(at.sum() - survives.sum())
        at = survives
        if at.sum() < 1e-12:
            break
    return np.asarray(np.maximum(np.array(found), 0.0), dtype=float)


def _swept(first: Law, interval_s: float | None, limit_s: float, sweep_s: float, horizon_s: float) -> Law:
    """The first sweep that finds nothing heard for the limit, of frames at U, U + T, …; from connecting."""
    if interval_s is None:
        return Law.uniform(limit_s, limit_s + sweep_s)
    cell_s, sweeps_s = sweep_phases(sweep_s)
    begins = np.unique(first.quantile((np.arange(_PHASES) + 0.5) / _PHASES))[:, np.newaxis]
    left = np.full((len(begins), len(sweeps_s)), 1 / len(begins))
    heard_s, frame_s = np.zeros_like(begins), begins
    found: list[tuple[FloatArray, FloatArray]] = []
    while heard_s.min() < horizon_s and left.any():
        out_s = sweeps_s + sweep_s * np.ceil((heard_s + limit_s - sweeps_s) / sweep_s)
        gone = out_s < frame_s
        found.append((out_s[gone], left[gone]))
        left = np.where(gone, 0.0, left)
        heard_s, frame_s = frame_s, frame_s + interval_s
    return law_of_cells(found, cell_s)


# -- outages ---------------------------------------------------------------------------------------------


def outage_losses_per_day(scenario: Scenario) -> tuple[float | None, str]:
    """Losses of one client a day by outages of its own network, and why that is not known (None).

    Source: `false_suspicions_by_outages`, where nothing but the heartbeat ends a connection.
    """
    policy, network, kind = scenario.liveness, scenario.network, scenario.detector
    if network.outages is None:
        return 0.0, ""
    interval_s = _interval(scenario)
    longest_s = Law.of(network.outages.length).hi_s
    gives_up_s = gives_up_of(scenario, SCENARIO_TIME).lo_s
    heard_s = (interval_s or 0.0) + policy.patience_s
    others = [
        ("reconnect.idle_limit", scenario.reconnect.idle_limit is not None),
        ("session_timeout", policy.session_timeout is not None and policy.session_timeout < heard_s),
        ("tcp_user_timeout", gives_up_s < policy.patience_s),
        ("tcp_keepalive", policy.tcp_keepalive is not None),
        ("traffic", scenario.traffic.to_gateway is not None or scenario.traffic.to_client is not None),
        (
            "network.nat",
            network.nat is not None and (network.nat.counts, network.nat.at) != ("any", "client"),
        ),
        ("network.nat.expiry: close", network.nat is not None and network.nat.expiry == "close"),
        (f"detector {kind.kind}", not isinstance(kind, Ping) or interval_s is None),
    ]
    if unknown := [name for name, is_so in others if is_so]:
        return None, f"no rate of losses in outages for {', '.join(unknown)}"
    assert interval_s is not None
    if (
        policy.patience_s > _ISOLATED * network.outages.every
        or longest_s <= policy.patience_s < 3 * longest_s
    ):
        return None, "outages that follow each other within the patience add up"
    return float(false_suspicions_by_outages(interval_s, policy.patience_s, network)), ""
