"""Predict every milestone of a scenario's faults: from a scenario to laws. No plan, no random numbers.

One `Prediction` per fault label and milestone, in seconds from the fault. Where theory is not exact the law is None and
the note says why; tables keep that row, without numbers. A milestone that cannot happen (the heartbeat keeps the NAT
open, the page is back in time) has a law of mass 0. How long a dead client's user is locked out follows from the
retries of a login and the law of the clean-up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from harness.theory.fault_laws import FaultLaws, age_of, laws_of_fault
from harness.theory.law import FloatArray, Law, mixture
from harness.theory.layer_laws import gives_up_of, round_trip_of
from harness.theory.losses import Lifetime, idle_timer_prevented, lifetime, outage_losses_per_day, tied_limits
from harness.theory.record_laws import least_left_s, predict_presence, record_expires
from harness.theory.stack import first_of
from reference_server.durations import DAY_S
from reference_server.events import Cause
from reference_server.liveness.kinds import ClientBeats, PhiAkka, PhiCassandra, Ping, Probing
from reports.run_tables import HEALTHY, LOST, LOST_BY, LOST_IN_OUTAGE
from scenarios.client_rules import LoginOnOtherDevice
from scenarios.clock import SCENARIO_TIME, RunClock
from scenarios.distributions import Distribution, Exponential
from scenarios.faults import Fault
from scenarios.faults.delayed import Delayed
from scenarios.faults.frozen import Frozen
from scenarios.faults.host_crash import HostCrash
from scenarios.faults.network_cut import NetworkCut
from scenarios.faults.noop import Noop
from scenarios.faults.packet_loss import PacketLoss
from scenarios.faults.slow_reader import SlowReader
from scenarios.faults.throttled_timers import ThrottledTimers
from scenarios.schema import Scenario
from scenarios.target import MODELLED

__all__ = ["Prediction", "coincides", "locked_out", "predict", "predict_healthy"]

_TOO_CLOSE = 0.05  # of the wait between two tries
_NODES = 32  # of a random first try
_UNEVEN = (
    0.03  # of a distribution: what one sweep's phase may move it by, and the faults still be independent
)
_UNTRIED = 1e-4


def locked_out(cleared: Law, first_try: Distribution, retry_s: float) -> Law:
    """The first try at or after the clean-up ends it; the user who is let in at the first try was never locked out.

    Tries come at A, A + r, A + 2r, …: the time is A + r·ceil((C − A)/r) for C > A, else 0. A random A is
    taken at the midpoints of 32 equally likely intervals. A try takes no time here; a real one takes a round
    trip or two, so its grid slips by that much a refusal.
    """
    if not cleared.mass:
        return Law.never()
    if first_try.constant is not None:
        return _on_grid(cleared, first_try.constant, retry_s)
    nodes = first_try.quantile((np.arange(_NODES) + 0.5) / _NODES)
    return mixture((1 / _NODES, _on_grid(cleared, float(a), retry_s)) for a in nodes)


def coincides(cleared: Law, first_try: Distribution, retry_s: float) -> bool:
    """Whether a clean-up at a certain moment meets a try: within 5 % of the wait between two tries, either way.

    Then the time jumps by a whole wait for a millisecond of lag, and no exact law holds.
    """
    if first_try.constant is None:
        return False
    jumps = cleared.times_s[1:][np.diff(cleared.times_s) == 0]
    tries = (jumps - first_try.constant) / retry_s
    near = np.abs(tries - np.maximum(np.round(tries), 0.0))
    return bool(np.any(near <= _TOO_CLOSE))


def _on_grid(cleared: Law, first_s: float, retry_s: float) -> Law:
    tries = max(0, math.ceil((cleared.hi_s - first_s) / retry_s))
    times = first_s + retry_s * np.arange(1, tries + 1)
    at = np.concatenate(([float(cleared.cdf(first_s))], cleared.cdf(times)))
    return Law.sides(np.concatenate(([0.0], times)), np.concatenate(([0.0], at[:-1])), at)


@dataclass(frozen=True, slots=True)
class Prediction:
    """Theory of one milestone. Times are scenario seconds from the fault.

    ``cause`` is the layer that decides most often; empty where none does. ``law`` None: not known exactly.
    ``shared`` says what random thing all faults share, so that they are not independent draws of the law.
    """

    fault: str
    milestone: str
    cause: str
    law: Law | None
    note: str
    shared: str = ""


def predict(scenario: Scenario, clock: RunClock = SCENARIO_TIME) -> list[Prediction]:
    """Predict a scenario's faults in the order of the file, each milestone in the order of its laws.

    `suspected`, `socket_closed`, `store_cleared` and `peers_notified` of every fault, and `locked_out` where
    the scenario has users who log in again. Assumes a uniform phase, an idle network and store, a gateway that is
    on time; leaves out memory pressure.

    Args:
        scenario: what is to happen.
        clock: of the run to compare with: `SCENARIO_TIME` for a simulation, ``scenario.clock`` for a real run. Round
            trips and TCP's timers do not shrink with the rest, so in scenario time they grow.
    """
    life = lifetime(scenario, clock)
    return [prediction for fault in scenario.faults for prediction in _of_fault(fault, scenario, clock, life)]


def predict_healthy(scenario: Scenario, clock: RunClock = SCENARIO_TIME) -> list[Prediction]:
    """Predict what healthy clients lose: the law of a connection's life, and of the time between losses in outages.

    A connection's life once more for each author (of the gateway's: each cause) that ends some, where theory knows
    which. Times from connecting; those of outages, from one to the next of one client once outages may begin, and from
    an outage's beginning to its loss (the law's earliest time).
    """
    life = lifetime(scenario, clock)
    found = [Prediction(HEALTHY, LOST, life.cause, life.law, life.note, life.shared)]
    tied = tied_limits(scenario, clock)
    if tied:
        found.append(Prediction(HEALTHY, LOST_BY, "", None, tied))
    elif life.law is not None and life.law.mass:
        parts = life.parts or {}
        found += [Prediction(HEALTHY, LOST_BY + by, by, law, "", life.shared) for by, law in parts.items()]
    if scenario.network.outages is not None:
        rate, why = outage_losses_per_day(scenario)
        law = Law.never() if rate == 0 else None
        if rate:
            # The loss comes half an interval and the patience after its outage began, on average.
            after_s = scenario.liveness.interval_s / 2 + scenario.liveness.patience_s
            law = Law.of(Distribution(exponential=Exponential(mean=DAY_S / rate))).shifted(after_s)
        found.append(Prediction(HEALTHY, LOST_IN_OUTAGE, str(Cause.HEARTBEAT) if law else "", law, why))
    return found


def _not_known(fault: Fault, laws: FaultLaws, scenario: Scenario, clock: RunClock, life: Lifetime) -> str:
    """What the scenario has that this fault's laws know nothing of; empty: nothing."""
    if scenario.target is not None and not scenario.target.heartbeat.law_known:
        return "the target file claims no law (heartbeat.model: unknown)"
    keys = [
        *(["incidents"] if scenario.incidents else []),
        *(["stalls"] if scenario.gateway.stalls else []),
        *(["traffic.service"] if scenario.traffic.service != Distribution(constant=0.0) else []),
    ]
    if keys:
        return f"no law for {', '.join(keys)}"
    if laws.suspected is None:
        return ""
    nat, announced = scenario.network.nat, fault.drawn.announced
    comes_back = (
        announced and nat is not None and nat.expiry == "close"
    )  # a closed client is on another connection
    if not idle_timer_prevented(scenario, clock) and not comes_back and not isinstance(fault, Noop):
        return "network.nat: its idle timer may end before the fault comes"
    if announced:
        return ""
    if scenario.liveness.heartbeat_interval is None and life.cause in laws.wins:
        return ""  # the law itself counts from the connection
    if life.law is None:
        return f"how long a healthy connection lasts is not known: {life.note}"
    decided_s = laws.suspected.hi_s if laws.suspected.mass else scenario.horizon_s
    if life.law.mass and life.law.lo_s <= age_of(fault, scenario).hi_s + decided_s:
        return f"healthy connections may end first ({life.cause})"
    if not _middle_waits(fault, laws, scenario, clock):
        return "no law for network.nat: its idle timer may end before the fault is detected"
    return _traffic_not_known(fault, laws, scenario, clock)


def _middle_waits(fault: Fault, laws: FaultLaws, scenario: Scenario, clock: RunClock) -> bool:
    """Whether the idle timer of the middle has no part in what follows a fault, the heartbeat being below it."""
    nat, interval_s = scenario.network.nat, scenario.liveness.heartbeat_interval or math.inf
    if nat is None or isinstance(fault, Noop):
        return True
    assert laws.suspected is not None
    trip_s = round_trip_of(scenario, clock).hi_s
    beats = isinstance(scenario.detector, ClientBeats)
    pings_count = not beats and (
        nat.counts in ("any", "to_client") or (nat.counts == "data" and not scenario.detector.protocol_ping)
    )
    match fault:
        case ThrottledTimers() | Delayed():
            late_s = fault.every if isinstance(fault, ThrottledTimers) else Law.of(fault.by).hi_s
            return pings_count or interval_s + late_s + trip_s < nat.idle_timeout
        case HostCrash() | NetworkCut() if (nat.at, nat.expiry) in (
            ("client", "drop"),
            ("client", "reset"),
        ) and (fault.healing is None):
            return True  # its client's end is cut: nothing of the box gets through
        case Frozen() | SlowReader() if nat.at == "client" and pings_count and fault.healing is None:
            return True
        case _:
            return (
                laws.suspected.mass > 1 - 1e-9
                and interval_s + laws.suspected.hi_s + trip_s < nat.idle_timeout
            )


def _silent_for_good(fault: Fault) -> bool:
    return isinstance(fault, HostCrash | NetworkCut | Frozen | SlowReader) and fault.healing is None


def _traffic_not_known(fault: Fault, laws: FaultLaws, scenario: Scenario, clock: RunClock) -> str:
    """Whether application frames decide something: theory counts pings and their answers alone."""
    traffic, policy = scenario.traffic, scenario.liveness
    if (traffic.to_gateway is None and traffic.to_client is None) or isinstance(fault, Noop):
        return ""
    by_ping = set(laws.wins) <= {Cause.HEARTBEAT} and isinstance(scenario.detector, Ping)
    if by_ping and traffic.to_gateway is None and isinstance(fault, ThrottledTimers | Delayed):
        return ""
    latest_s = laws.suspected.hi_s if laws.suspected else 0.0
    races = policy.session_timeout is not None and policy.session_timeout < latest_s
    # What is sent between two pings starts the kernel's clock up to T earlier.
    kernel = gives_up_of(scenario, clock).lo_s - (policy.heartbeat_interval or 0.0) > policy.patience_s
    waits = policy.resume_window > policy.patience_s and not scenario.sessions.survives_connection
    heard = traffic.to_gateway is not None and (races or waits)
    if by_ping and kernel and not heard and _silent_for_good(fault):
        return ""
    return "no law for traffic: application frames are signs of life, too"


def _stays_shown(fault: Fault, scenario: Scenario, clock: RunClock) -> bool:
    """Whether frames of a client that lives come in time for its status record."""
    shown = predict_presence(scenario, clock)
    if shown is None or shown.mass:
        return False
    interval_s = scenario.liveness.heartbeat_interval or 0.0
    match fault:
        case ThrottledTimers():
            return interval_s + fault.every < least_left_s(scenario)
        case Delayed():
            return interval_s + Law.of(fault.by).hi_s < least_left_s(scenario)
        case PacketLoss():
            return math.isinf(least_left_s(scenario))
        case _:
            return True


def _shared(fault: Fault, laws: FaultLaws, scenario: Scenario) -> str:
    """The sweep's phase is one for the whole run: it is as good as independent where the faults span many sweeps."""
    if laws.suspected is None or not laws.suspected.mass:
        return ""
    by_age = scenario.liveness.heartbeat_interval is None or isinstance(
        scenario.detector, PhiAkka | PhiCassandra | Probing
    )
    last_s = Law.of(fault.at).hi_s + laws.suspected.hi_s
    if by_age and not fault.drawn.announced and last_s > scenario.duration:
        return "the connection's age decides, and those whose faults come late are not watched to the end"
    swept = sum(laws.wins.get(cause, 0.0) for cause in (Cause.SESSION_TIMEOUT, Cause.SWEEP))
    sweep_s, at = scenario.liveness.sweep_interval, Law.of(fault.at)
    if swept < 1e-3 or not at.mass:
        return ""
    phases_s = np.linspace(0.0, sweep_s, 65)
    uneven = _by_phase(at, sweep_s, phases_s) - phases_s / sweep_s
    policy, ramp = scenario.liveness, Law.uniform(0.0, scenario.ramp)
    few_sweeps = policy.first_ping == "interval" and scenario.ramp < 8 * sweep_s
    if few_sweeps and policy.heartbeat_interval is not None:
        began = _by_phase(ramp, sweep_s, phases_s) - phases_s / sweep_s
        if swept * float(np.ptp(began)) >= _UNEVEN:
            return "the connections began within too few sweeps, whose phase is one for the whole run"
    if swept * float(np.ptp(uneven)) < _UNEVEN:
        return ""
    return "the faults span too few sweeps, whose phase is one for the whole run"


def _by_phase(law: Law, sweep_s: float, phases_s: FloatArray) -> FloatArray:
    """P(its time lies within a phase after the last sweep), for each phase. Sweeps may be tens of thousands."""
    sweeps = np.arange(math.floor(law.lo_s / sweep_s), math.ceil(law.hi_s / sweep_s) + 1, dtype=float)
    within = np.zeros(len(phases_s))
    for some_s in np.array_split(sweeps * sweep_s, 1 + len(sweeps) // 1000):
        within += np.sum(law.cdf(some_s[:, None] + phases_s) - law.before(some_s)[:, None], axis=0)
    return within


def _of_fault(fault: Fault, scenario: Scenario, clock: RunClock, life: Lifetime) -> list[Prediction]:
    laws = laws_of_fault(fault, scenario, clock)
    if why := _not_known(fault, laws, scenario, clock, life):
        laws = FaultLaws(None, None, note=why, heals=laws.heals)
    laws, coarse = _with_grain(laws, fault, scenario)
    relogin = None if fault.drawn.user_stays else scenario.reconnect.relogin
    taking_over = relogin if scenario.sessions.second_login == "take_over" else None
    cause = max(laws.wins, key=lambda name: laws.wins[name], default="")
    unnoticed = laws.suspected is not None and not laws.suspected.mass and _silent_for_good(fault)
    if laws.suspected is not None and not laws.suspected.mass and not unnoticed:
        taking_over = None  # nothing happens to the old session
    suspected, caused_by, remark = _or_taken_over(laws, laws.suspected, cause, taking_over)
    cleared, cleared_by, cleared_remark = _or_taken_over(laws, laws.cleared, cause, taking_over)
    if unnoticed:
        expires, ttl = record_expires(fault, scenario, clock)
        latest_s = Law.of(taking_over.after).hi_s if taking_over else 0.0
        if taking_over and (expires is None or (expires.mass and expires.lo_s < latest_s)):
            suspected, remark = None, "the record that a new login would take over may expire first"
        cleared, cleared_by, cleared_remark = _or_taken_over(laws, expires, str(Cause.TTL), taking_over)
    elif cleared is not None and not cleared.mass and not _stays_shown(fault, scenario, clock):
        cleared, ttl = None, "a late frame, or none, lets the status record expire"
    else:
        cleared, ttl = _unless_ttl(cleared, scenario, clock)
    found = [
        ("suspected", caused_by, suspected, remark),
        ("socket_closed", caused_by, _socket_closed(fault, suspected, scenario, clock), remark),
        ("store_cleared", cleared_by, cleared, _join(laws.cleared_note, cleared_remark, ttl)),
        (
            "peers_notified",
            cleared_by,
            *_peers(laws, cleared, cleared_by, taking_over, scenario, clock, life),
        ),
    ]
    if relogin is not None:
        found.append(("locked_out", cause, *_locked_out(fault, laws, relogin, scenario)))
    shared = coarse or _shared(fault, laws, scenario)
    return [
        Prediction(
            fault.label,
            milestone,
            why if law and law.mass else "",
            law,
            _join(laws.note, said, _run_ends(fault, law, scenario)),
            shared if law and law.mass else "",
        )
        for milestone, why, law, said in found
        if scenario.target is None or milestone in MODELLED
    ]


def _with_grain(laws: FaultLaws, fault: Fault, scenario: Scenario) -> tuple[FaultLaws, str]:
    """Add the grain of a foreign server's timers; and say that it is one draw for the whole run."""
    heartbeat = scenario.target.heartbeat if scenario.target is not None else None
    grain = heartbeat.grain_at(scenario.speedup) if heartbeat is not None else None
    if heartbeat is None or grain is None or laws.suspected is None or not laws.suspected.mass:
        return laws, ""
    if fault.drawn.announced or Cause.HEARTBEAT not in laws.wins:
        return laws, ""
    # The fault's wait for the next ping, each further ping's, and the deadline.
    pings = heartbeat.misses + (heartbeat.model == "next_tick")
    suspected = laws.suspected.plus(Law.uniform(0.0, pings * grain.interval_spread_s))
    suspected = suspected.plus(Law.uniform(0.0, grain.timeout_spread_s))
    return replace(laws, suspected=suspected), "the phase of the server's own looks is one for the whole run"


def _or_taken_over(
    laws: FaultLaws, law: Law | None, cause: str, relogin: LoginOnOtherDevice | None
) -> tuple[Law | None, str, str]:
    """Mix in the share of users whose new login ends the old session first."""
    if relogin is None or law is None:
        return law, cause, ""
    if laws.heals:
        return None, cause, "a new login competes with the client's recovery"
    raced = first_of({cause: law, Cause.TAKE_OVER: Law.of(relogin.after)})
    share = relogin.share * raced.wins[Cause.TAKE_OVER]
    return (
        mixture([(1 - relogin.share, law), (relogin.share, raced.law)]),
        str(Cause.TAKE_OVER) if share > 0.5 else cause,
        f"{share:.1%} by the user's new login",
    )


def _unless_ttl(law: Law | None, scenario: Scenario, clock: RunClock) -> tuple[Law | None, str]:
    """Withhold a law of the clean-up that the status record's own expiry may overtake."""
    shown = predict_presence(scenario, clock)
    lasts = shown is not None and not shown.mass
    if law is None or not law.mass or (lasts and law.hi_s < least_left_s(scenario)):
        return law, ""
    return None, "the status record's TTL may end first"


def _peers(
    laws: FaultLaws,
    cleared: Law | None,
    cause: str,
    relogin: LoginOnOtherDevice | None,
    scenario: Scenario,
    clock: RunClock,
    life: Lifetime,
) -> tuple[Law | None, str]:
    watchers = scenario.sessions.watchers_per_user
    if watchers == 0:
        return None, "nobody watches"
    if relogin is not None and laws.suspected is not None:
        return None, "after a new login the user is online through another session"
    if cleared is None:
        return None, "follows the clean-up, which has no exact law"
    if cause == Cause.TTL and not scenario.store.announces_expiry:
        return Law.never(), "nobody announces that a record has expired"
    if cleared.mass and scenario.network.outages is not None:
        return None, "a watcher hears later whose own network is away"
    if cleared.mass and (life.law is None or (life.law.mass and life.law.lo_s <= scenario.horizon_s)):
        return None, "watchers may lose their own connections"
    if cause == Cause.TTL:
        cleared = cleared.plus(Law.of(scenario.store.expiry_lag))
    one_way = clock.seen(Law.of(scenario.network.round_trip)).scaled(0.5)
    return cleared.plus(one_way.slowest_of(watchers)), ""


def _locked_out(
    fault: Fault, laws: FaultLaws, relogin: LoginOnOtherDevice, scenario: Scenario
) -> tuple[Law | None, str]:
    unnoticed = laws.suspected is not None and laws.suspected.mass == 0
    if unnoticed and not _silent_for_good(fault):
        return Law.never(), ""
    if scenario.sessions.second_login == "take_over":
        return Law.constant(0.0), "a new login is let in at once"
    tried = Law.of(fault.at).plus(Law.of(relogin.after))
    if float(tried.cdf(scenario.duration)) < 1 - _UNTRIED:
        return None, "some users have not tried to log in by the run's end"
    if unnoticed:
        return None, "nobody notices: until the record's TTL ends"
    if laws.heals:
        return None, "the healed client competes for the login"
    if laws.cleared is None:
        return None, "follows the clean-up, which has no exact law"
    if laws.cleared.hi_s >= least_left_s(scenario):
        return None, "the status record's TTL may end first"
    if coincides(laws.cleared, relogin.after, relogin.retry):
        return None, "a try comes together with the clean-up: which is first is a matter of lag"
    return locked_out(laws.cleared, relogin.after, relogin.retry), ""


def _socket_closed(fault: Fault, suspected: Law | None, scenario: Scenario, clock: RunClock) -> Law | None:
    """A server that is not ours may hold its socket on: it waits for a silent peer to answer its close."""
    lag_s = scenario.target.heartbeat.socket_lag if scenario.target is not None else 0.0
    if suspected is None or not suspected.mass or fault.drawn.announced:
        return suspected
    return suspected.shifted(clock.scenario_s(lag_s)) if lag_s else suspected


def _run_ends(fault: Fault, law: Law | None, scenario: Scenario) -> str:
    if law is None or not law.mass:
        return ""
    last_s = float(Law.of(fault.at).hi_s) + law.hi_s
    return "" if last_s <= scenario.duration else "the run may end first: some are censored"


def _join(*notes: str) -> str:
    return "; ".join(dict.fromkeys(note for note in notes if note))
