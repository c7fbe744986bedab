"""What theory says of one fault of a scenario: when it is suspected, by which layer, when its records go.

From a fault, the policy and the network to laws in scenario seconds from the moment the fault takes
effect. What does not shrink with a real run (round trips, TCP's timers) counts as the scenario's clock sees it.
Milestones that follow from these are `predict.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from harness.theory.adaptive_laws import phi_silence, probed_wait, wait_for_ping
from harness.theory.client_beat_laws import delayed_beats, lossy_beats, throttled_beats
from harness.theory.detectors import nat_prevented, nat_reset
from harness.theory.late_answers import bundled_answers, late_answers, resent_pings
from harness.theory.law import Law, mixture
from harness.theory.layer_laws import (
    DETECTORS_WITH_LAWS,
    after_client_beat,
    after_unheard_end,
    gives_up_of,
    round_trip_of,
)
from harness.theory.silence import Healing, race, silent_death, store_floor
from harness.theory.stack import Layer, Stack, first_of, first_of_common_phase
from reference_server.events import Cause
from reference_server.liveness.kinds import (
    ClientBeats,
    PhiAkka,
    PhiCassandra,
    Probing,
    SendErrors,
    StateCheck,
)
from scenarios.clock import SCENARIO_TIME, RunClock
from scenarios.distributions import Distribution
from scenarios.faults import Fault
from scenarios.faults.custom import Custom
from scenarios.faults.delayed import Delayed
from scenarios.faults.frozen import Frozen
from scenarios.faults.host_crash import HostCrash
from scenarios.faults.nat_timeout import NatTimeout
from scenarios.faults.network_cut import NetworkCut
from scenarios.faults.noop import Noop
from scenarios.faults.orderly_close import OrderlyClose
from scenarios.faults.packet_loss import PacketLoss
from scenarios.faults.process_crash import ProcessCrash
from scenarios.faults.refresh import Refresh
from scenarios.faults.slow_reader import SlowReader
from scenarios.faults.throttled_timers import ThrottledTimers
from scenarios.schema import Scenario

__all__ = ["FaultLaws", "age_of", "laws_of_fault"]


_SILENT = HostCrash | NetworkCut | Frozen | SlowReader | NatTimeout  # the client sends nothing more
_LATE = ThrottledTimers | Delayed | PacketLoss  # it answers, but late


@dataclass(frozen=True, slots=True)
class FaultLaws:
    """Laws of one fault; each a distribution of seconds since it took effect.

    Attributes:
        suspected: of the suspicion. None: no exact closed form exists; then ``note`` is shown instead and nothing is
            compared.
        cleared: of the moment when the store's records are gone; None as above.
        wins: share of the suspicions by cause.
        note: a remark, or why there is no law.
        cleared_note: why there is no law of the clean-up alone.
        heals: the client may come back by itself, which competes with its detection.
    """

    suspected: Law | None
    cleared: Law | None
    wins: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    cleared_note: str = ""
    heals: bool = False


def _unknown(note: str, *, heals: bool = False) -> FaultLaws:
    return FaultLaws(None, None, note=note, heals=heals)


def _never(note: str) -> FaultLaws:
    return FaultLaws(Law.never(), Law.never(), note=note)


def laws_of_fault(fault: Fault, scenario: Scenario, clock: RunClock) -> FaultLaws:
    """Return the laws of one fault under its scenario, for a run with this clock."""
    one_way = round_trip_of(scenario, clock).scaled(0.5)
    acts_on = scenario.liveness.close_detection
    match fault:
        case Refresh() if acts_on == "none":
            return _unknown("close detection is off: the page is back before the end")
        case OrderlyClose() if acts_on == "none":
            return _unheard(fault, scenario, clock)
        case ProcessCrash() if acts_on != "all":
            return _unheard(fault, scenario, clock)
        case OrderlyClose():
            return _closed(scenario, one_way, Cause.CLOSE_FRAME)
        case ProcessCrash():
            cause = Cause.TCP_RESET if fault.by == "rst" else Cause.TCP_FIN
            return _closed(scenario, one_way, cause)
        case Refresh():
            return _refreshed(scenario, one_way)
        case Custom():
            return _unknown("a fault of the user's own", heals=fault.heal_after is not None)
        case SlowReader() if scenario.liveness.data_counts and (
            scenario.liveness.heartbeat_interval is None or isinstance(scenario.detector, ClientBeats)
        ):
            return _unknown(_OWN_REQUESTS)
        case _ if scenario.liveness.heartbeat_interval is None and isinstance(fault, _SILENT | _LATE | Noop):
            return _idle_only(fault, scenario, clock)
        case Noop() | HostCrash() | NetworkCut() | Frozen() | NatTimeout() if isinstance(
            scenario.detector, PhiAkka | PhiCassandra
        ):
            return _phi(fault, scenario.detector, scenario, clock)
        case Noop() | HostCrash() | NetworkCut() | Frozen() if isinstance(scenario.detector, Probing):
            return _probing(fault, scenario.detector, scenario, clock)
        case _ if not isinstance(scenario.detector, DETECTORS_WITH_LAWS):
            note = f"theory has no law of {fault.kind} for the detector {scenario.detector.kind}"
            return _unknown(note, heals=isinstance(fault, _LATE) or fault.healing is not None)
        case Noop():
            return _nothing(scenario)
        case _ if isinstance(scenario.detector, ClientBeats) and isinstance(fault, _SILENT):
            return _client_silent(fault, scenario, clock)
        case ThrottledTimers() | Delayed() | PacketLoss() if isinstance(scenario.detector, ClientBeats):
            return _late_beats(fault, scenario, clock)
        case _ if isinstance(scenario.detector, ClientBeats):
            note = f"theory has no law of {fault.kind} where clients beat by themselves"
            return _unknown(note, heals=fault.healing is not None)
        case NatTimeout():
            return _nat(fault, scenario, clock)
        case SlowReader():
            return _slow_reader(fault, scenario, clock)
        case ThrottledTimers() | Delayed() | PacketLoss():
            return _late(fault, scenario, clock)
        case HostCrash() | NetworkCut() | Frozen():
            return _silent(fault, scenario, clock)
        case _:  # a fault that is new here: no law is guessed
            return _unknown(f"theory has no law of {fault.kind}", heals=fault.healing is not None)


def _closed(scenario: Scenario, one_way: Law, cause: Cause) -> FaultLaws:
    """A close that arrives is a sign of life: the whole resume window is left."""
    cleared = one_way.shifted(scenario.liveness.resume_window)
    return FaultLaws(one_way, cleared, {cause: 1.0})


def _unheard(fault: OrderlyClose | ProcessCrash, scenario: Scenario, clock: RunClock) -> FaultLaws:
    """An end that the kernel tells and nobody acts on: whoever looks at the socket, or awaits an answer."""
    policy, kind = scenario.liveness, scenario.detector
    if policy.heartbeat_interval is None:
        return _idle_only(fault, scenario, clock)
    if not isinstance(kind, DETECTORS_WITH_LAWS):
        return _unknown(f"theory has no law of an end that nobody acts on for the detector {kind.kind}")
    trip = round_trip_of(scenario, clock)
    if isinstance(kind, ClientBeats):
        layers = after_client_beat(policy, trip, acknowledged=True)  # a closed socket is not probed
    else:
        layers = after_unheard_end(policy, trip, kind)
    return _raced(fault, scenario, clock, layers, "close detection does not act on it")


def _client_silent(fault: Fault, scenario: Scenario, clock: RunClock) -> FaultLaws:
    """The client's own beats stop: the idle limit, and the kernel's probes."""
    policy = scenario.liveness
    trip = round_trip_of(scenario, clock)
    if policy.session_timeout is not None and policy.session_timeout < (policy.heartbeat_interval or 0.0):
        return _unknown(_IDLE_BELOW_HEARTBEAT)
    if _healing(fault, scenario, clock) is not None:
        return _unknown("a healed client's next beat competes with the idle limit", heals=True)
    if isinstance(fault, NatTimeout):
        return _client_behind_nat(fault, scenario, trip)
    acknowledged = isinstance(fault, Frozen | SlowReader)
    layers = after_client_beat(policy, trip, acknowledged=acknowledged)
    return _raced(fault, scenario, clock, layers)


def _client_behind_nat(fault: NatTimeout, scenario: Scenario, trip: Law) -> FaultLaws:
    policy, idle_s = scenario.liveness, fault.nat.idle_timeout
    if nat_prevented(policy.interval_s, idle_s):
        return _never(
            f"prevented by traffic: T = {policy.heartbeat_interval:g} s is below the NAT's {idle_s:g} s"
        )
    if policy.tcp_keepalive is not None or policy.close_detection != "all":
        return _unknown("the kernel's probes are traffic, too")
    # The last packet at the client's end is the pong, a whole round trip after its beat.
    if fault.nat.expiry == "reset":
        reset = trip.scaled(-0.5).shifted(policy.interval_s - idle_s)
        return FaultLaws(reset, reset.shifted(policy.resume_window), {Cause.TCP_RESET: 1.0})
    if policy.session_timeout is None:
        return _never("no idle limit: never noticed")
    idle = Law.uniform(0.0, policy.sweep_interval).plus(trip.scaled(-0.5))
    suspected = idle.shifted(policy.session_timeout - idle_s)
    return FaultLaws(suspected, suspected, {Cause.SESSION_TIMEOUT: 1.0})


def _raced(
    fault: Fault, scenario: Scenario, clock: RunClock, layers: Mapping[str, Layer], said: str = ""
) -> FaultLaws:
    """The first of some layers; a session timeout clears at once, other causes when the window is over."""
    policy = scenario.liveness
    if not layers:
        return _never(_notes(said, "no layer notices it"))
    signs = {layer.sign for layer in layers.values()}
    phase = _phase(fault, scenario, clock)
    if _is_even(phase, policy.interval_s):
        stack = first_of_common_phase(policy.interval_s, layers)
    elif len(signs) == 1:
        (sign,) = signs
        stack = first_of({name: layer.rest for name, layer in layers.items()})
        # The last ping or beat was T − U before the fault.
        moved = {1: phase, -1: phase.shifted(-policy.interval_s), 0: Law.constant(0.0)}[sign]
        stack = Stack(stack.law.plus(moved), stack.wins)
    else:
        return _unknown(_UNEVEN)
    note = _notes(said, _layers_note(stack))
    # The window counts from the last sign of life, as do the layers that do not know the next ping.
    earliest_s = min(layer.rest.lo_s for layer in layers.values()) if signs == {-1} else stack.law.lo_s
    if (
        set(layers) != {Cause.SESSION_TIMEOUT}
        and policy.resume_window > 0
        and earliest_s < policy.resume_window
    ):
        late = "the resume window may end after the suspicion"
        return FaultLaws(stack.law, None, stack.wins, note, late)
    return FaultLaws(stack.law, stack.law, stack.wins, note)


def _phi(
    fault: Noop | HostCrash | NetworkCut | Frozen | NatTimeout,
    kind: PhiAkka | PhiCassandra,
    scenario: Scenario,
    clock: RunClock,
) -> FaultLaws:
    """The silence since the last answer at which φ reaches its threshold; it does not know the next ping's phase."""
    policy, trip = scenario.liveness, round_trip_of(scenario, clock)
    interval_s, one_way = policy.interval_s, trip.scaled(0.5)
    heals = _healing(fault, scenario, clock) is not None
    at_random = policy.first_ping == "random"
    silence, why = phi_silence(kind, interval_s, trip, age_of(fault, scenario), at_random=at_random)
    if policy.session_timeout is not None and policy.session_timeout < interval_s:
        why = _IDLE_BELOW_HEARTBEAT
    elif heals:
        why = "a healed client's answers compete with φ"
    elif _probes_between_beats(scenario):
        why = _PROBES
    if why:
        return _unknown(why, heals=heals)
    if isinstance(fault, Noop):
        return _nothing(scenario)
    if isinstance(fault, NatTimeout) and (
        fault.nat.expiry == "reset" or nat_prevented(interval_s, fault.nat.idle_timeout)
    ):
        return _nat(fault, scenario, clock)
    if isinstance(fault, NatTimeout):
        return _unknown("silence that a NAT begins: theory has no law of it for φ")
    layers: dict[str, Layer] = {Cause.HEARTBEAT: Layer(-1, silence.plus(one_way))}
    if policy.session_timeout is not None:
        idle = one_way.plus(Law.uniform(0.0, policy.sweep_interval))
        layers[Cause.SESSION_TIMEOUT] = Layer(-1, idle.shifted(policy.session_timeout))
    gives_up = gives_up_of(scenario, clock)
    if not isinstance(fault, Frozen) and gives_up.lo_s < silence.hi_s:
        if policy.close_detection != "all":
            return _unknown(
                "the kernel gives up before φ has decided, and close detection does not act on it"
            )
        layers[Cause.TCP_TIMEOUT] = Layer(+1, gives_up.plus(one_way.scaled(-1.0)))
    return _raced(fault, scenario, clock, layers)


def _probing(
    fault: Noop | HostCrash | NetworkCut | Frozen, kind: Probing, scenario: Scenario, clock: RunClock
) -> FaultLaws:
    """The next ping of an interval that grew with the connection's age; then k deadlines, one after the other."""
    policy, trip = scenario.liveness, round_trip_of(scenario, clock)
    wait, longest_s = probed_wait(kind, trip, age_of(fault, scenario))
    verdict_s = policy.max_failures * policy.heartbeat_timeout
    heals = _healing(fault, scenario, clock) is not None
    why = ""
    if policy.session_timeout is not None and policy.session_timeout < longest_s + verdict_s + trip.hi_s:
        why = "the idle limit may run out before a probed interval does"
    elif heals:
        why = "a healed client's answers compete with the detector"
    elif policy.tcp_keepalive is not None and policy.tcp_keepalive.idle < longest_s:
        why = "tcp_keepalive.idle is below a probed interval: probes and heartbeats alternate"
    elif not isinstance(fault, Frozen | Noop) and gives_up_of(scenario, clock).lo_s < verdict_s:
        why = "the kernel may give up before the last deadline"
    if why:
        return _unknown(why, heals=heals)
    if isinstance(fault, Noop):
        return _never("nothing happens: the baseline")
    if policy.resume_window > verdict_s:
        return _unknown("the resume window may end after the suspicion")
    suspected = wait.plus(trip.scaled(-0.5)).shifted(verdict_s)
    return FaultLaws(suspected, suspected, {Cause.HEARTBEAT: 1.0})


def age_of(fault: Fault, scenario: Scenario) -> Law:
    """Of the connection at the fault: clients connect evenly over the ramp, and faults are timed from its end."""
    return Law.uniform(0.0, scenario.ramp).plus(Law.of(fault.at))


def _refreshed(scenario: Scenario, one_way: Law) -> FaultLaws:
    """The records go only where the page takes longer than the window; else it has its session again."""
    window_s = scenario.liveness.resume_window
    too_late = 1 - float(scenario.reconnect.page_load.cdf(window_s))
    cleared = mixture([(too_late, one_way.shifted(window_s))])
    note = f"{1 - too_late:.4%} of the pages are back within the resume window" + (
        " (without the time to connect)" if too_late else ""
    )
    return FaultLaws(one_way, cleared, {Cause.CLOSE_FRAME: 1.0}, note, heals=True)


def _nothing(scenario: Scenario) -> FaultLaws:
    """A client that answers in time is never suspected."""
    policy = scenario.liveness
    if policy.session_timeout is not None and policy.session_timeout < (policy.heartbeat_interval or 0.0):
        return _unknown(_IDLE_BELOW_HEARTBEAT)
    return _never("nothing happens: the baseline")


def _silent(fault: HostCrash | NetworkCut | Frozen, scenario: Scenario, clock: RunClock) -> FaultLaws:
    policy = scenario.liveness
    healing = _healing(fault, scenario, clock)
    if healing is not None and scenario.reconnect.idle_limit is not None:
        return _unknown(
            "a client that reconnects by its own idle limit competes with its recovery", heals=True
        )
    trip = round_trip_of(scenario, clock)
    acknowledged = isinstance(fault, Frozen)  # by the frozen client's kernel
    stack = _race(scenario, trip, None if acknowledged else gives_up_of(scenario, clock))
    if stack is None:
        return _unknown(_IDLE_BELOW_HEARTBEAT, heals=healing is not None)
    floor = _store_floor(scenario, stack, trip)
    phase = _phase(fault, scenario, clock)
    if _probes_between_beats(scenario) and healing is not None:
        return _unknown(_PROBES, heals=True)
    if _probes_between_beats(scenario) and not acknowledged:
        return _probed_silence(fault, scenario, trip, stack)
    suspected = silent_death(policy.interval_s, trip, stack.law, healing, phase)
    note = _notes(_layers_note(stack), _slow_answers_note(scenario, clock))
    wins: Mapping[str, float] = stack.wins
    cleared_note = ""
    cleared: Law | None
    if floor is None:
        cleared, cleared_note = None, _WINDOW_OR_LIMIT
    elif healing is None:
        cleared = silent_death(policy.interval_s, trip, floor, phase=phase)
    elif floor is stack.law:
        cleared = suspected
    else:
        cleared, cleared_note = None, "a healed client may resume after the suspicion"
    return FaultLaws(suspected, cleared, wins, note, cleared_note, heals=healing is not None)


def _slow_reader(fault: SlowReader, scenario: Scenario, clock: RunClock) -> FaultLaws:
    """A frozen client, but for the kernel: its patience with a closed window counts from the fault itself."""
    policy = scenario.liveness
    trip = round_trip_of(scenario, clock)
    stack = _race(scenario, trip, None)
    if stack is None:
        return _unknown(_IDLE_BELOW_HEARTBEAT)
    phase = _phase(fault, scenario, clock)
    suspected = silent_death(policy.interval_s, trip, stack.law, phase=phase)
    if policy.data_counts and stack.wins.get(Cause.SESSION_TIMEOUT, 0.0) > 0:
        return _unknown(_OWN_REQUESTS)
    cleared: Law | None
    if not policy.data_counts:
        floor = _store_floor(scenario, stack, trip)
        cleared = None if floor is None else silent_death(policy.interval_s, trip, floor, phase=phase)
        said = _WINDOW_OR_LIMIT
    else:
        cleared, said = _after_own_requests(scenario, suspected, trip), _OWN_REQUESTS
    if policy.tcp_user_timeout is not None and gives_up_of(scenario, clock).lo_s < suspected.hi_s:
        note = (
            "tcp_user_timeout may be first: the kernel's probe timer, which is coarse and does not scale, "
            "ends the connection 0.2 to 0.6 s after it"
        )
        return _unknown(note)
    return FaultLaws(suspected, cleared, stack.wins, _layers_note(stack), "" if cleared is not None else said)


def _after_own_requests(scenario: Scenario, suspected: Law, trip: Law) -> Law | None:
    """The clean-up where data at the fault was the last sign of life: the resume window counts from there."""
    window = trip.scaled(0.5).shifted(scenario.liveness.resume_window)
    if scenario.sessions.survives_connection or window.hi_s <= suspected.lo_s:
        return suspected
    return window if window.lo_s >= suspected.hi_s else None


def _late(fault: ThrottledTimers | Delayed | PacketLoss, scenario: Scenario, clock: RunClock) -> FaultLaws:
    """A client that answers late is a healthy one: it comes back, so recovery competes with the clean-up."""
    policy = scenario.liveness
    after = "the client comes back by itself and may resume its session"
    if fault.heal_after is not None:
        return _unknown("heals: it competes with answers that come now and then", heals=True)
    trip = round_trip_of(scenario, clock)
    match fault:
        case ThrottledTimers():
            longest_s = fault.every
        case Delayed():
            longest_s = Law.of(fault.by).hi_s
        case PacketLoss():
            longest_s = policy.patience_s  # one that is later is thrown out
    phase = _phase(fault, scenario, clock)
    gap_s = policy.interval_s + trip.hi_s + longest_s
    if policy.session_timeout is not None and policy.session_timeout < gap_s:
        return _unknown("the idle limit may run out between two late answers: no closed form", heals=True)
    if isinstance(fault, PacketLoss) and scenario.reconnect.idle_limit is not None:
        return _unknown("the client's own limit may be first", heals=True)
    if isinstance(scenario.detector, SendErrors | StateCheck):
        if isinstance(fault, PacketLoss) and policy.tcp_user_timeout is not None:
            return _unknown("tcp_user_timeout may be first", heals=True)
        return _never("nobody waits for an answer")
    if isinstance(fault, ThrottledTimers):
        law = bundled_answers(policy, fault.every, trip, scenario.duration, phase)
        why = "R differs from T: the phase of the pings moves with every miss"
    elif isinstance(fault, PacketLoss):
        ladder = [clock.scenario_s(step) for step in scenario.network.rto_ladder]
        law = resent_pings(policy, fault.rate, ladder, trip, scenario.duration, phase)
        why = "R differs from T and a late answer moves the pings, or a try comes just at the deadline"
        if policy.tcp_user_timeout is not None and gives_up_of(scenario, clock).lo_s < longest_s:
            law, why = None, "tcp_user_timeout may be first"
    else:
        late = late_answers(policy, Law.of(fault.by), trip)
        why = "an answer comes now before, now after (k−1)R + τ: no closed form"
        law = None
        if late is not None:
            stack = _race(scenario, trip, None)
            assert stack is not None
            law = silent_death(policy.interval_s, trip, stack.law, phase=phase) if late else Law.never()
    if law is None:
        return _unknown(why, heals=True)
    if not law.mass:
        return FaultLaws(law, law, note="every answer comes before the last deadline")
    of = (
        "clients are not thrown out in time"
        if isinstance(fault, PacketLoss)
        else "phases are never thrown out"
    )
    note = "" if law.mass > 1 - 1e-9 else f"{1 - law.mass:.1%} of the {of}"
    return FaultLaws(law, None, {Cause.HEARTBEAT: law.mass}, note, cleared_note=after, heals=True)


def _late_beats(
    fault: ThrottledTimers | Delayed | PacketLoss, scenario: Scenario, clock: RunClock
) -> FaultLaws:
    """A client that beats late, or whose beats get lost: the idle limit runs out between two of them."""
    policy, trip = scenario.liveness, round_trip_of(scenario, clock)
    if fault.heal_after is not None:
        return _unknown("heals: it competes with beats that come now and then", heals=True)
    if policy.session_timeout is None:
        quiet = scenario.reconnect.idle_limit is None and policy.tcp_user_timeout is None
        if isinstance(fault, PacketLoss) and not quiet:
            return _unknown("answers to the beats get lost, too", heals=True)
        return _never("no idle limit: late beats are not noticed")
    if policy.session_timeout < policy.interval_s:
        return _unknown(_IDLE_BELOW_HEARTBEAT, heals=True)
    phase = _phase(fault, scenario, clock)
    since_last = phase.shifted(-policy.interval_s)  # the last beat was T − U before the fault
    if isinstance(fault, ThrottledTimers) and not _is_even(phase, policy.interval_s):
        return _unknown(_UNEVEN, heals=True)
    if scenario.reconnect.idle_limit is not None:
        return _unknown(
            "the client's own limit may be first: it hears answers to its beats alone", heals=True
        )
    if isinstance(fault, PacketLoss) and policy.tcp_user_timeout is not None:
        return _unknown("tcp_user_timeout may be first: answers to the beats get lost, too", heals=True)
    suspected: Law | None
    match fault:
        case ThrottledTimers():
            suspected = throttled_beats(policy, fault.every, scenario.duration)
            why = "a slow timer that is faster than the beats: which of its runs a beat meets is the page's affair"
        case Delayed():
            since_beat = delayed_beats(policy, Law.of(fault.by))
            suspected = None if since_beat is None else since_beat.plus(since_last)
            why = "beats of random lateness come before, now after the limit: no closed form"
        case PacketLoss():
            ladder = [clock.scenario_s(step) for step in scenario.network.rto_ladder]
            since_beat = lossy_beats(policy, fault.rate, ladder, scenario.duration)
            suspected, why = since_beat.plus(since_last), ""
    if suspected is None:
        return _unknown(why, heals=True)
    if not suspected.mass:
        return FaultLaws(suspected, suspected, note="every beat comes within the idle limit")
    suspected = suspected.plus(trip.scaled(0.5))
    after = "the client comes back by itself and may resume its session"
    wins: dict[str, float] = {Cause.SESSION_TIMEOUT: suspected.mass}
    return FaultLaws(suspected, None, wins, cleared_note=after, heals=True)


def _nat(fault: NatTimeout, scenario: Scenario, clock: RunClock) -> FaultLaws:
    policy, idle_s = scenario.liveness, fault.nat.idle_timeout
    if nat_prevented(policy.interval_s, idle_s):
        return _never(
            f"prevented by traffic: T = {policy.heartbeat_interval:g} s is below the NAT's {idle_s:g} s"
        )
    trip = round_trip_of(scenario, clock)
    if _probes_between_beats(scenario):
        return _unknown(_PROBES)
    if fault.nat.expiry == "reset" and policy.close_detection != "all":
        return _unknown("close detection does not act on the RST")
    if fault.nat.expiry == "reset":
        # The last packet left the client half a round trip after the last ping; the RST takes the other half.
        # Two pings, two independent round trips.
        suspected = nat_reset(policy, idle_s).plus(trip).plus(trip.scaled(-0.5))
        return FaultLaws(suspected, suspected.shifted(policy.resume_window), {Cause.TCP_RESET: 1.0})
    stack = _race(scenario, trip, gives_up_of(scenario, clock))
    if stack is None:
        return _unknown(_IDLE_BELOW_HEARTBEAT)
    first_lost = trip.scaled(-0.5).shifted(policy.interval_s - idle_s)
    suspected = first_lost.plus(stack.law)
    floor = _store_floor(scenario, stack, trip)
    cleared = None if floor is None else first_lost.plus(floor)
    said = _WINDOW_OR_LIMIT if cleared is None else ""
    return FaultLaws(suspected, cleared, stack.wins, _layers_note(stack), said)


_OWN_REQUESTS = "its last request is a sign of life at the fault, which moves a timer of the gateway's"
_WINDOW_OR_LIMIT = "the idle limit clears at once, the other layers when the resume window is over"


def _store_floor(scenario: Scenario, stack: Stack, trip: Law) -> Law | None:
    """The clean-up of the status: with the suspicion, where sessions survive; else not before the window is over.

    The idle limit clears at once, whatever the window: None where it is the first of several layers.
    """
    policy = scenario.liveness
    idle = stack.wins.get(Cause.SESSION_TIMEOUT, 0.0)
    if scenario.sessions.survives_connection or (stack.law.mass and idle >= stack.law.mass - 1e-9):
        return stack.law
    if idle > 0 and policy.session_timeout is not None and policy.session_timeout < policy.resume_window:
        return None
    return store_floor(policy, stack.law, trip)


def _probed_silence(fault: Fault, scenario: Scenario, trip: Law, stack: Stack) -> FaultLaws:
    """The kernel probes an idle connection before the next ping; once that is in flight, it probes no more.

    V after the last answer the client dies; the last probe that it answered was m × idle after it. The next one is, and
    ends the connection after ``count`` intervals, if that is before the ping at T. Else the heartbeat decides.
    """
    policy, probes = scenario.liveness, scenario.liveness.tcp_keepalive
    assert probes is not None
    if policy.close_detection != "all":
        return _unknown("close detection does not act on the end that the kernel's probes find")
    if not _is_even(_phase(fault, scenario, SCENARIO_TIME), policy.interval_s):
        return _unknown(_UNEVEN)
    interval_s, one_way = policy.interval_s, trip.scaled(0.5)
    by_ping = stack.law.plus(one_way.scaled(-1.0))
    parts: list[tuple[float, Law]] = []
    probed = 0.0
    for m in range(math.ceil(interval_s / probes.idle)):
        low, high = m * probes.idle, min((m + 1) * probes.idle, interval_s)
        ends_s, share = m * probes.idle + probes.patience_s, (high - low) / interval_s
        if ends_s < interval_s:
            probed += share
            parts.append((share, Law.uniform(ends_s - high, ends_s - low).plus(one_way)))
        else:
            parts.append((share, Law.uniform(interval_s - high, interval_s - low).plus(by_ping)))
    suspected = mixture(parts)
    wins = {name: share * (1 - probed) for name, share in stack.wins.items()}
    wins[Cause.TCP_TIMEOUT] = wins.get(Cause.TCP_TIMEOUT, 0.0) + probed
    if policy.resume_window > probes.count * probes.interval and not scenario.sessions.survives_connection:
        return FaultLaws(suspected, None, wins, cleared_note="the resume window may end after the suspicion")
    return FaultLaws(suspected, suspected, wins)


def _phase(fault: Fault, scenario: Scenario, clock: RunClock) -> Law:
    """From the fault to the next ping: uniform in (0, T), or what the connection's age leaves of T."""
    policy = scenario.liveness
    interval_s = policy.interval_s
    if policy.first_ping == "random" or isinstance(scenario.detector, Probing):
        return Law.uniform(0.0, interval_s)
    age = age_of(fault, scenario)
    pings_s = interval_s * np.arange(1, math.ceil(age.hi_s / interval_s) + 2)
    return wait_for_ping(pings_s.tolist(), round_trip_of(scenario, clock), age)


def _is_even(phase: Law, interval_s: float) -> bool:
    """Whether a phase is as good as uniform."""
    at_s = np.linspace(0.0, interval_s, 65)
    return bool(np.max(np.abs(phase.cdf(at_s) - at_s / interval_s)) < 0.01)


_UNEVEN = "first_ping: interval, and the connections' ages span too few intervals: the phase is not uniform"


def _idle_only(fault: Fault, scenario: Scenario, clock: RunClock) -> FaultLaws:
    """No heartbeat: the idle limit, counted from the one frame that a client ever sent, and the kernel's probes."""
    policy = scenario.liveness
    if isinstance(fault, NatTimeout):
        return _unknown("no heartbeat, no packet: no mapping is made that could expire")
    if _healing(fault, scenario, SCENARIO_TIME) is not None:
        return _unknown("no heartbeat: nothing tells a healed client from a silent one", heals=True)
    layers: dict[str, Law] = {}
    if policy.session_timeout is not None:
        age = age_of(fault, scenario)
        if age.hi_s > policy.session_timeout:
            return _unknown(
                "no heartbeat: the idle limit drops clients, healthy ones too, before some faults come"
            )
        swept = Law.uniform(policy.session_timeout, policy.session_timeout + policy.sweep_interval)
        layers[Cause.SESSION_TIMEOUT] = swept.plus(age.scaled(-1.0))
    probes = policy.tcp_keepalive
    if probes is not None and isinstance(fault, HostCrash | NetworkCut) and policy.close_detection == "all":
        # They go on every ``idle`` from the connection on, for as long as they are answered.
        age = age_of(fault, scenario)
        probes_s = probes.idle * np.arange(1, math.ceil(age.hi_s / probes.idle) + 2)
        wait = wait_for_ping(probes_s.tolist(), round_trip_of(scenario, clock), age)
        layers[Cause.TCP_TIMEOUT] = wait.shifted(probes.count * probes.interval)
    if len(layers) > 1 and layers[Cause.TCP_TIMEOUT].hi_s >= layers[Cause.SESSION_TIMEOUT].lo_s:
        return _unknown("no heartbeat: the connection's age decides both the idle limit and the probes")
    if not layers:
        return _never("no heartbeat and no idle limit: never noticed")
    stack = first_of(layers)
    note = _notes(
        _layers_note(stack),
        "idle limit counted from the connection: a silent client sends nothing else; it drops healthy clients too"
        if Cause.SESSION_TIMEOUT in layers
        else "",
    )
    if policy.resume_window > 0 and (
        policy.resume_window > (policy.session_timeout or math.inf) or Cause.TCP_TIMEOUT in layers
    ):
        if set(layers) == {Cause.TCP_TIMEOUT} and _window_is_over(fault, scenario):
            return FaultLaws(stack.law, stack.law, stack.wins, note)
        longer = "the resume window may end after the suspicion"
        return FaultLaws(stack.law, None, stack.wins, note, longer)
    return FaultLaws(stack.law, stack.law, stack.wins, note)


def _window_is_over(fault: Fault, scenario: Scenario) -> bool:
    """Whether the resume window, which counts from the last frame, is over before any fault of a silent client."""
    return age_of(fault, scenario).lo_s > scenario.liveness.resume_window


def _probes_between_beats(scenario: Scenario) -> bool:
    """Whether the kernel probes an idle connection before the next beat: no law is given for that here."""
    probes, interval_s = scenario.liveness.tcp_keepalive, scenario.liveness.heartbeat_interval
    return probes is not None and interval_s is not None and probes.idle < interval_s


_PROBES = "tcp_keepalive.idle is below heartbeat_interval: probes and heartbeats alternate"
_IDLE_BELOW_HEARTBEAT = (
    "session_timeout is below heartbeat_interval: healthy clients are dropped between two pongs"
)


def _race(scenario: Scenario, trip: Law, gives_up: Law | None) -> Stack | None:
    policy = scenario.liveness
    if policy.session_timeout is not None and policy.session_timeout < policy.interval_s:
        return None
    return race(policy, trip, gives_up, scenario.detector)


def _healing(fault: Fault, scenario: Scenario, clock: RunClock) -> Healing | None:
    heals: Distribution | None
    match fault:
        case NetworkCut():
            heals = fault.heal_after
            ladder = tuple(clock.scenario_s(step) for step in scenario.network.rto_ladder)
            return None if heals is None else Healing(heals, ladder)
        case Frozen():
            heals = fault.thaw_after
            return None if heals is None else Healing(heals, None)
        case _:
            return None


def _layers_note(stack: Stack) -> str:
    shares = sorted(((share, name) for name, share in stack.wins.items() if share > 1e-6), reverse=True)
    if len(shares) < 2:
        return ""
    return "first layer: " + ", ".join(f"{name} {share:.1%}" for share, name in shares)


def _slow_answers_note(scenario: Scenario, clock: RunClock) -> str:
    late = 1 - float(scenario.network.round_trip.cdf(clock.real_s(scenario.liveness.heartbeat_timeout)))
    return f"{late:.2g} of the answers come after the deadline" if late > 1e-6 else ""


def _notes(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
