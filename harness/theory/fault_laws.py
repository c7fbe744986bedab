"""What theory says of one fault of a scenario: when it is suspected, by which layer, when its records go.

From a fault, the policy and the network to laws in scenario seconds from the moment the fault takes
effect. What does not shrink with a real run (round trips, TCP's timers) counts as the scenario's clock sees it.
Milestones that follow from these are `predict.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.theory.adaptive_laws import phi_silence, probed_wait
from harness.theory.detectors import nat_prevented, nat_reset
from harness.theory.late_answers import bundled_answers, late_answers, resent_pings
from harness.theory.law import Law, mixture
from harness.theory.layer_laws import DETECTORS_WITH_LAWS, after_client_beat, after_unheard_end
from harness.theory.silence import Healing, race, silent_death, store_floor
from harness.theory.stack import Layer, Stack, first_of_common_phase
from harness.theory.tcp import ladder_give_up_s, tcp_give_up_s, user_timeout_fires_s, user_timeout_late_s
from reference_server.events import Cause
from reference_server.liveness.kinds import ClientBeats, PhiAkka, PhiCassandra, Probing, StateCheck
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
from scenarios.network import Network
from scenarios.schema import Scenario

__all__ = ["FaultLaws", "give_up_late_s", "laws_of_fault"]


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
    one_way = _trip(scenario, clock).scaled(0.5)
    acts_on = scenario.liveness.close_detection
    match fault:
        case Refresh() if acts_on == "none":
            return _unknown("close detection is off: the page is back before the end")
        case OrderlyClose() if acts_on == "none":
            return _unheard(fault, scenario, one_way)
        case ProcessCrash() if acts_on != "all":
            return _unheard(fault, scenario, one_way)
        case OrderlyClose():
            return _closed(scenario, one_way, Cause.CLOSE_FRAME)
        case ProcessCrash():
            cause = Cause.TCP_RESET if fault.by == "rst" else Cause.TCP_FIN
            return _closed(scenario, one_way, cause)
        case Refresh():
            return _refreshed(scenario, one_way)
        case Custom():
            return _unknown("a fault of the user's own", heals=fault.heal_after is not None)
        case _ if scenario.liveness.heartbeat_interval is None and isinstance(fault, _SILENT | _LATE | Noop):
            return _idle_only(fault, scenario)
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
        case _ if isinstance(scenario.detector, ClientBeats):
            note = f"theory has no law of {fault.kind} where clients beat by themselves"
            return _unknown(note, heals=isinstance(fault, _LATE) or fault.healing is not None)
        case NatTimeout():
            return _nat(fault, scenario, clock)
        case SlowReader():
            return _slow_reader(scenario, clock)
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


def _unheard(fault: OrderlyClose | ProcessCrash, scenario: Scenario, one_way: Law) -> FaultLaws:
    """An end that the kernel tells and nobody acts on: whoever looks at the socket, or awaits an answer."""
    policy, kind = scenario.liveness, scenario.detector
    if policy.heartbeat_interval is None:
        return _idle_only(fault, scenario)
    if not isinstance(kind, DETECTORS_WITH_LAWS):
        return _unknown(f"theory has no law of an end that nobody acts on for the detector {kind.kind}")
    trip = one_way.scaled(2.0)
    if isinstance(kind, ClientBeats):
        layers = after_client_beat(policy, trip, acknowledged=True)  # a closed socket is not probed
    else:
        layers = after_unheard_end(policy, trip, kind)
    said = _notes("close detection does not act on it", _phase_note(fault, scenario))
    return _raced(scenario, layers, said)


def _client_silent(fault: Fault, scenario: Scenario, clock: RunClock) -> FaultLaws:
    """The client's own beats stop: the idle limit, and the kernel's probes."""
    policy = scenario.liveness
    trip = _trip(scenario, clock)
    if policy.session_timeout is not None and policy.session_timeout < (policy.heartbeat_interval or 0.0):
        return _unknown(_IDLE_BELOW_HEARTBEAT)
    if _healing(fault, scenario, clock) is not None:
        return _unknown("a healed client's next beat competes with the idle limit", heals=True)
    if isinstance(fault, NatTimeout):
        return _client_behind_nat(fault, scenario, trip)
    acknowledged = isinstance(fault, Frozen | SlowReader)
    layers = after_client_beat(policy, trip, acknowledged=acknowledged)
    return _raced(scenario, layers, _phase_note(fault, scenario))


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


def _raced(scenario: Scenario, layers: Mapping[str, Layer], said: str) -> FaultLaws:
    """The first of some layers; a session timeout clears at once, other causes when the window is over."""
    policy = scenario.liveness
    if not layers:
        return _never(_notes(said, "no layer notices it"))
    stack = first_of_common_phase(policy.interval_s, layers)
    note = _notes(said, _layers_note(stack))
    # The window counts from the last sign of life, as do the layers that do not know the next ping.
    signs = {layer.sign for layer in layers.values()}
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
    policy, trip = scenario.liveness, _trip(scenario, clock)
    interval_s, one_way = policy.interval_s, trip.scaled(0.5)
    heals = _healing(fault, scenario, clock) is not None
    silence, why = phi_silence(kind, interval_s, trip, _age(fault, scenario))
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
    gives_up = _gives_up(scenario, clock)
    if not isinstance(fault, Frozen) and gives_up.lo_s < silence.hi_s:
        if policy.close_detection != "all":
            return _unknown(
                "the kernel gives up before φ has decided, and close detection does not act on it"
            )
        layers[Cause.TCP_TIMEOUT] = Layer(+1, gives_up.plus(one_way.scaled(-1.0)))
    return _raced(scenario, layers, _phase_note(fault, scenario))


def _probing(
    fault: Noop | HostCrash | NetworkCut | Frozen, kind: Probing, scenario: Scenario, clock: RunClock
) -> FaultLaws:
    """The next ping of an interval that grew with the connection's age; then k deadlines, one after the other."""
    policy, trip = scenario.liveness, _trip(scenario, clock)
    wait, longest_s = probed_wait(kind, trip, _age(fault, scenario))
    verdict_s = policy.max_failures * policy.heartbeat_timeout
    heals = _healing(fault, scenario, clock) is not None
    why = ""
    if policy.session_timeout is not None and policy.session_timeout < longest_s + verdict_s + trip.hi_s:
        why = "the idle limit may run out before a probed interval does"
    elif heals:
        why = "a healed client's answers compete with the detector"
    elif policy.tcp_keepalive is not None and policy.tcp_keepalive.idle < longest_s:
        why = "tcp_keepalive.idle is below a probed interval: probes and heartbeats alternate"
    elif not isinstance(fault, Frozen | Noop) and _gives_up(scenario, clock).lo_s < verdict_s:
        why = "the kernel may give up before the last deadline"
    if why:
        return _unknown(why, heals=heals)
    if isinstance(fault, Noop):
        return _never("nothing happens: the baseline")
    if policy.resume_window > verdict_s:
        return _unknown("the resume window may end after the suspicion")
    suspected = wait.plus(trip.scaled(-0.5)).shifted(verdict_s)
    return FaultLaws(suspected, suspected, {Cause.HEARTBEAT: 1.0}, _phase_note(fault, scenario))


def _age(fault: Fault, scenario: Scenario) -> Law:
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
    trip = _trip(scenario, clock)
    acknowledged = isinstance(fault, Frozen)  # by the frozen client's kernel
    stack = _race(scenario, trip, None if acknowledged else _gives_up(scenario, clock))
    if stack is None:
        return _unknown(_IDLE_BELOW_HEARTBEAT, heals=healing is not None)
    if _probes_between_beats(scenario):
        return _unknown(_PROBES, heals=healing is not None)
    floor = store_floor(policy, stack.law, trip)
    suspected = silent_death(policy.interval_s, trip, stack.law, healing)
    note = _notes(_layers_note(stack), _phase_note(fault, scenario), _slow_answers_note(scenario, clock))
    wins: Mapping[str, float] = stack.wins
    cleared_note = ""
    if healing is None:
        cleared: Law | None = silent_death(policy.interval_s, trip, floor)
    elif floor is stack.law:
        cleared = suspected
    else:
        cleared, cleared_note = None, "a healed client may resume after the suspicion"
    return FaultLaws(suspected, cleared, wins, note, cleared_note, heals=healing is not None)


def _slow_reader(scenario: Scenario, clock: RunClock) -> FaultLaws:
    """A frozen client, but for the kernel: its patience with a closed window counts from the fault itself."""
    policy = scenario.liveness
    trip = _trip(scenario, clock)
    stack = _race(scenario, trip, None)
    if stack is None:
        return _unknown(_IDLE_BELOW_HEARTBEAT)
    suspected = silent_death(policy.interval_s, trip, stack.law)
    cleared = silent_death(policy.interval_s, trip, store_floor(policy, stack.law, trip))
    if policy.tcp_user_timeout is not None and _gives_up(scenario, clock).lo_s < suspected.hi_s:
        note = (
            "tcp_user_timeout may be first: the kernel's probe timer, which is coarse and does not scale, "
            "ends the connection 0.2 to 0.6 s after it"
        )
        return _unknown(note)
    return FaultLaws(suspected, cleared, stack.wins, _layers_note(stack))


def _late(fault: ThrottledTimers | Delayed | PacketLoss, scenario: Scenario, clock: RunClock) -> FaultLaws:
    """A client that answers late is a healthy one: it comes back, so recovery competes with the clean-up."""
    policy = scenario.liveness
    after = "the client comes back by itself and may resume its session"
    if fault.heal_after is not None:
        return _unknown("heals: it competes with answers that come now and then", heals=True)
    trip = _trip(scenario, clock)
    match fault:
        case ThrottledTimers():
            longest_s = fault.every
        case Delayed():
            longest_s = Law.of(fault.by).hi_s
        case PacketLoss():
            longest_s = policy.patience_s  # one that is later is thrown out
    gap_s = policy.interval_s + trip.hi_s + longest_s
    if policy.session_timeout is not None and policy.session_timeout < gap_s:
        return _unknown("the idle limit may run out between two late answers: no closed form", heals=True)
    if isinstance(fault, ThrottledTimers):
        law = bundled_answers(policy, fault.every, trip, scenario.duration)
        why = "R differs from T: the phase of the pings moves with every miss"
    elif isinstance(fault, PacketLoss):
        ladder = [clock.scenario_s(step) for step in scenario.network.rto_ladder]
        law = resent_pings(policy, fault.rate, ladder, trip, scenario.duration)
        why = "R differs from T and a late answer moves the pings, or a try comes just at the deadline"
        if policy.tcp_user_timeout is not None and _gives_up(scenario, clock).lo_s < longest_s:
            law, why = None, "tcp_user_timeout may be first"
    else:
        late = late_answers(policy, Law.of(fault.by), trip)
        why = "an answer comes now before, now after (k−1)R + τ: no closed form"
        law = None
        if late is not None:
            stack = _race(scenario, trip, None)
            assert stack is not None
            law = silent_death(policy.interval_s, trip, stack.law) if late else Law.never()
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


def _nat(fault: NatTimeout, scenario: Scenario, clock: RunClock) -> FaultLaws:
    policy, idle_s = scenario.liveness, fault.nat.idle_timeout
    if nat_prevented(policy.interval_s, idle_s):
        return _never(
            f"prevented by traffic: T = {policy.heartbeat_interval:g} s is below the NAT's {idle_s:g} s"
        )
    trip = _trip(scenario, clock)
    if _probes_between_beats(scenario):
        return _unknown(_PROBES)
    if fault.nat.expiry == "reset" and policy.close_detection != "all":
        return _unknown("close detection does not act on the RST")
    if fault.nat.expiry == "reset":
        # The last packet left the client half a round trip after the last ping; the RST takes the other half.
        # Two pings, two independent round trips.
        suspected = nat_reset(policy, idle_s).plus(trip).plus(trip.scaled(-0.5))
        return FaultLaws(suspected, suspected.shifted(policy.resume_window), {Cause.TCP_RESET: 1.0})
    stack = _race(scenario, trip, _gives_up(scenario, clock))
    if stack is None:
        return _unknown(_IDLE_BELOW_HEARTBEAT)
    first_lost = trip.scaled(-0.5).shifted(policy.interval_s - idle_s)
    suspected = first_lost.plus(stack.law)
    cleared = first_lost.plus(store_floor(policy, stack.law, trip))
    return FaultLaws(suspected, cleared, stack.wins, _layers_note(stack))


def _idle_only(fault: Fault, scenario: Scenario) -> FaultLaws:
    """No heartbeat: only the idle limit, counted from the one frame that a silent client ever sent."""
    policy = scenario.liveness
    if isinstance(fault, NatTimeout):
        return _unknown("no heartbeat, no packet: no mapping is made that could expire")
    if policy.session_timeout is None:
        return _never("no heartbeat and no idle limit: never noticed")
    if _healing(fault, scenario, SCENARIO_TIME) is not None:
        return _unknown("no heartbeat: nothing tells a healed client from a silent one", heals=True)
    age = _age(fault, scenario)
    if age.hi_s > policy.session_timeout:
        return _unknown(
            "no heartbeat: the idle limit drops clients, healthy ones too, before some faults come"
        )
    idle = Law.uniform(policy.session_timeout, policy.session_timeout + policy.sweep_interval)
    suspected = idle.plus(age.scaled(-1.0))
    note = "idle limit counted from the connection: a silent client sends nothing else; it drops healthy clients too"
    if policy.resume_window > policy.session_timeout:
        longer = "resume_window is above session_timeout"
        return FaultLaws(suspected, None, {Cause.SESSION_TIMEOUT: 1.0}, note, longer)
    return FaultLaws(suspected, suspected, {Cause.SESSION_TIMEOUT: 1.0}, note)


def _trip(scenario: Scenario, clock: RunClock) -> Law:
    return clock.seen(Law.of(scenario.network.round_trip))


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


def _gives_up(scenario: Scenario, clock: RunClock) -> Law:
    """When TCP ends the connection, from the first unacknowledged ping.

    The kernel's own patience is scenario time: a faster run bounds it on each socket, by a user timeout
    of that length, which the kernel counts from its own first retransmission. Its timer is late by up to its
    grain, which does not shrink with the rest.
    """
    user_timeout_s = scenario.liveness.tcp_user_timeout
    if user_timeout_s is None and clock.is_real_time:
        return Law.constant(ladder_give_up_s(scenario.network.rto_ladder))
    patience_s = user_timeout_s or tcp_give_up_s()
    fires_s = user_timeout_fires_s(patience_s, scenario.network.seen_at(clock).rto_ladder)
    return Law.uniform(fires_s, fires_s + give_up_late_s(patience_s, scenario.network, clock))


def give_up_late_s(user_timeout_s: float, network: Network, clock: RunClock) -> float:
    """How late the kernel of a real run may give up, scenario seconds; 0 in real time, where it is next to nothing."""
    if clock.is_real_time:
        return 0.0
    return clock.scenario_s(user_timeout_late_s(clock.real_s(user_timeout_s), network.rto_ladder))


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


def _phase_note(fault: Fault, scenario: Scenario) -> str:
    interval_s = scenario.liveness.heartbeat_interval
    at = Law.of(fault.at)
    span_s = at.hi_s - at.lo_s
    if interval_s is not None and scenario.ramp + span_s < interval_s:
        return "ramp and fault times together span less than one heartbeat: the phase is not uniform"
    swept = scenario.liveness.session_timeout is not None or isinstance(scenario.detector, StateCheck)
    if interval_s is not None and swept and span_s < scenario.liveness.sweep_interval:
        return "the fault times span less than one sweep: its phase, one a run, is not uniform"
    return ""


def _slow_answers_note(scenario: Scenario, clock: RunClock) -> str:
    late = 1 - float(scenario.network.round_trip.cdf(clock.real_s(scenario.liveness.heartbeat_timeout)))
    return f"{late:.2g} of the answers come after the deadline" if late > 1e-6 else ""


def _notes(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
