"""Random policies and networks for comparing the engines. One seed makes one case; nothing here judges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from harness.simulated import simulate
from harness.simulated.fleet import FleetResult, Outcome, run_fleet
from reference_server.events import Cause, Event, EventKind
from reference_server.liveness.heartbeat_policy import LivenessPolicy
from scenarios.client_rules import Reconnect, Sessions
from scenarios.distributions import Distribution, Exponential, Lognormal, Uniform
from scenarios.faults import Fault
from scenarios.faults.frozen import Frozen
from scenarios.faults.host_crash import HostCrash
from scenarios.faults.nat_timeout import NatTimeout
from scenarios.faults.network_cut import NetworkCut
from scenarios.network import Nat, Network, Outages
from scenarios.plan import PlannedOutage, make_plan
from scenarios.schema import Scenario

__all__ = ["Case", "Observed", "fleet_of", "random_case", "simpy_of"]

KINDS = ("host_crash", "frozen", "network_cut", "nat_timeout", *4 * ("outages",))
_TEXTBOOK = (*tuple(0.2 * (2.0**n - 1) for n in range(1, 11)), 324.6, 444.6, 564.6, 684.6, 804.6)


@dataclass(frozen=True)
class Case:
    seed: int
    kind: str
    scenario: Scenario

    @property
    def fault(self) -> Fault | None:
        return self.scenario.faults[0] if self.scenario.faults else None

    def __str__(self) -> str:
        return f"seed {self.seed} ({self.kind}): {self.scenario.liveness} {self.scenario.network}"


@dataclass(frozen=True)
class Observed:
    """What either engine saw. ``detected_s``: latencies; ``mistakes``, ``healthy_s``: of each client."""

    faults: int
    detected_s: np.ndarray[tuple[int], np.dtype[np.float64]]
    recovered: int
    mistakes: np.ndarray[tuple[int], np.dtype[np.int64]]
    mistake_s: np.ndarray[tuple[int], np.dtype[np.float64]]
    healthy_s: np.ndarray[tuple[int], np.dtype[np.float64]]


def random_case(seed: int, *, clients: int) -> Case:
    """A policy, a network and a fault or outages; every ninth or so has answers that come too late."""
    rng = np.random.default_rng([seed, 5])
    kind = KINDS[seed % len(KINDS)]
    policy = _policy(rng, kind)
    interval_s = policy.heartbeat_interval
    assert interval_s is not None
    slow = kind == "outages" and rng.random() < 0.25
    network = Network(
        round_trip=_round_trip(rng, policy, slow),
        outages=_outages(rng, policy) if kind == "outages" else None,
        rto_ladder=Network().rto_ladder if rng.random() < 0.5 else _TEXTBOOK,
        nat=_nat(rng, interval_s) if kind == "outages" and rng.random() < 0.3 else None,
    )
    span_s = policy.sweep_interval * np.ceil(interval_s / policy.sweep_interval)
    worst_s = interval_s + (policy.max_failures - 1) * policy.retry_s + policy.heartbeat_timeout
    fault = _fault(rng, kind, policy, worst_s)
    idle_limit = None
    if kind == "outages" and rng.random() < 0.6:
        idle_limit = float(interval_s * rng.uniform(1.5, 6) + policy.heartbeat_timeout)
    scenario = Scenario(
        name="random",
        seed=seed,
        clients=clients,
        # Whole sweeps: then the one sweep of the SimPy engine's gateway meets every phase of its clients.
        ramp=float(span_s),
        duration=float(15 * interval_s if fault is None else 3 * interval_s + 1.2 * worst_s),
        liveness=policy,
        network=network,
        sessions=Sessions(watchers_per_user=0),
        reconnect=Reconnect(
            backoff_base=float(rng.uniform(0.5, 5)),
            backoff_max=float(rng.uniform(5, 30)),
            idle_limit=idle_limit,
        ),
        faults=() if fault is None else (fault,),
    )
    return Case(seed, kind, scenario)


def _policy(rng: np.random.Generator, kind: str) -> LivenessPolicy:
    interval_s = float(rng.uniform(5, 60))
    timeout_s = float(interval_s * rng.uniform(0.15, 1))
    failures = int(rng.integers(1, 5))
    retry_s = None
    if (way := rng.random()) < 0.4:
        retry_s = float(rng.uniform(timeout_s, interval_s))
    elif way < 0.5:
        retry_s = float(interval_s * rng.uniform(1, 1.5))
    patience_s = (failures - 1) * (retry_s or interval_s) + timeout_s
    idle_s = user_timeout_s = None
    if rng.random() < 0.4:
        # Below, at and above what the heartbeat takes: either layer may win.
        idle_s = float(interval_s + timeout_s + patience_s * rng.uniform(0, 1.5))
    if kind != "frozen" and rng.random() < 0.2:
        user_timeout_s = float(patience_s * rng.uniform(0.3, 1.5))
    return LivenessPolicy(
        heartbeat_interval=interval_s,
        heartbeat_timeout=timeout_s,
        max_failures=failures,
        retry_interval=retry_s,
        session_timeout=idle_s,
        sweep_interval=float(rng.uniform(1, 30)),
        tcp_user_timeout=user_timeout_s,
        resume_window=float(rng.uniform(0, 20)),
    )


def _round_trip(rng: np.random.Generator, policy: LivenessPolicy, slow: bool) -> Distribution:
    interval_s = policy.heartbeat_interval
    assert interval_s is not None
    timeout_s = policy.heartbeat_timeout
    if slow:
        # Some answers miss the deadline. No ping overtakes the one before: half of the longest is below R.
        longest_s = min(2 * min(policy.retry_s, interval_s), timeout_s * rng.uniform(1.2, 3))
        return Distribution(uniform=Uniform(low=0.0, high=float(longest_s)))
    typical_s = float(min(0.4, 0.02 * timeout_s) * rng.uniform(0.05, 1))
    match rng.integers(3):
        case 0:
            return Distribution(constant=typical_s)
        case 1:
            return Distribution(uniform=Uniform(low=typical_s / 2, high=2 * typical_s))
        case _:
            return Distribution(lognormal=Lognormal(median=typical_s, sigma=0.5))


def _outages(rng: np.random.Generator, policy: LivenessPolicy) -> Outages:
    """Frequent, and in half of the cases bursty: mostly short, now and then very long."""
    interval_s = policy.heartbeat_interval
    assert interval_s is not None
    patience_s = (policy.max_failures - 1) * policy.retry_s + policy.heartbeat_timeout
    typical_s = float(patience_s * rng.uniform(0.2, 0.8))
    if rng.random() < 0.5:
        length = Distribution(lognormal=Lognormal(median=typical_s / 2, sigma=1.5))
    else:
        length = Distribution(exponential=Exponential(mean=typical_s))
    return Outages(every=float(interval_s * rng.uniform(1.5, 12)), length=length)


def _fault(rng: np.random.Generator, kind: str, policy: LivenessPolicy, worst_s: float) -> Fault | None:
    interval_s = policy.heartbeat_interval
    assert interval_s is not None
    at = Distribution(uniform=Uniform(low=0.0, high=2 * interval_s))
    heals = Distribution(exponential=Exponential(mean=float(worst_s * rng.uniform(0.3, 1.5))))
    match kind:
        case "host_crash":
            return HostCrash(kind="host_crash", share=1.0, at=at)
        case "frozen":
            thaws = heals if rng.random() < 0.5 else None
            return Frozen(kind="frozen", share=1.0, at=at, thaw_after=thaws)
        case "network_cut":
            return NetworkCut(kind="network_cut", share=1.0, at=at, heal_after=heals)
        case "nat_timeout":
            nat = _nat(rng, interval_s)
            return NatTimeout(kind="nat_timeout", share=1.0, at=at, nat=nat)
        case _:
            return None


def _nat(rng: np.random.Generator, interval_s: float) -> Nat:
    """Beats keep the mapping of one, not of the other."""
    idle_s = float(interval_s * rng.choice([rng.uniform(0.1, 0.9), rng.uniform(1.1, 2)]))
    return Nat(idle_timeout=idle_s, expiry="drop" if rng.random() < 0.6 else "reset")


def fleet_of(
    case: Case, *, clients: int, policy: Callable[[LivenessPolicy], LivenessPolicy] = lambda p: p
) -> Observed:
    """The case in the fleet; ``policy`` may bend it."""
    scenario = case.scenario
    result: FleetResult = run_fleet(
        policy(scenario.liveness),
        scenario.network,
        clients=clients,
        duration_s=scenario.duration,
        rng=np.random.default_rng([case.seed, 6]),
        fault=case.fault,
        ramp_s=scenario.ramp,
        reconnect=scenario.reconnect,
    )
    took_effect = result.outcome != Outcome.NOT_APPLICABLE
    return Observed(
        faults=int(took_effect.sum()),
        detected_s=result.detection_s,
        recovered=int(np.sum(result.outcome == Outcome.RECOVERED)),
        mistakes=np.bincount(result.false_client, minlength=clients),
        mistake_s=result.false_suspicion_s,
        healthy_s=result.healthy_s,
    )


def simpy_of(case: Case) -> Observed:
    """The case in the SimPy engine, from its event log."""
    scenario = case.scenario
    calm = scenario.model_copy(update={"network": scenario.network.model_copy(update={"outages": None})})
    plan = replace(make_plan(calm), outages=_planned_outages(scenario))
    events = simulate(scenario, plan)
    if case.fault is not None:
        return _faults(events)
    return _mistakes(events, scenario)


def _planned_outages(scenario: Scenario) -> tuple[PlannedOutage, ...]:
    """As `make_plan` draws them, but all lengths at once: thousands of single draws take most of a test."""
    law = scenario.network.outages
    if law is None:
        return ()
    rng = np.random.default_rng([scenario.seed, 7])
    most = int(4 * scenario.duration / law.every) + 20  # of one client
    shape = (scenario.clients, most)
    gaps_s = rng.exponential(law.every, shape)
    lengths_s = law.length.sample(rng, scenario.clients * most).reshape(shape)
    ends_s = scenario.ramp + np.cumsum(gaps_s + lengths_s, axis=1)
    assert np.all(ends_s[:, -1] > scenario.horizon_s)
    return tuple(
        PlannedOutage(
            int(client), float(ends_s[client, n] - lengths_s[client, n]), float(lengths_s[client, n])
        )
        for client, n in np.argwhere(ends_s - lengths_s < scenario.horizon_s)
    )


def _faults(events: list[Event]) -> Observed:
    """One fault a client: detected, recovered or neither. A suspicion of the struck connection counts."""
    struck = {e.connection_id: e for e in events if e.kind is EventKind.FAULT_INJECTED}
    recovered_s = {e.detail["fault_id"]: e.time_s for e in events if e.kind is EventKind.FAULT_RECOVERED}
    detected = []
    for event in events:
        if event.kind is EventKind.SUSPECTED and event.connection_id in struck:
            fault = struck.pop(event.connection_id)
            back_s = recovered_s.get(fault.detail["fault_id"], np.inf)
            if fault.time_s <= event.time_s <= back_s:
                detected.append(event.time_s - fault.time_s)
                recovered_s.pop(fault.detail["fault_id"], None)
    faults = sum(e.kind is EventKind.FAULT_INJECTED for e in events)
    empty = np.empty(0)
    return Observed(faults, np.array(detected), len(recovered_s), np.empty(0, dtype=np.int64), empty, empty)


def _mistakes(events: list[Event], scenario: Scenario) -> Observed:
    """Healthy clients: connected until the gateway suspects, or they leave."""
    connected: dict[str, tuple[int, float]] = {}  # by connection
    mistakes = np.zeros(scenario.clients, dtype=np.int64)
    healthy_s = np.zeros(scenario.clients)
    mistake_s = []
    for event in events:
        if event.kind is EventKind.CONNECTED:
            connected[event.connection_id] = (event.detail["client"], event.time_s)
        elif event.kind in (EventKind.SUSPECTED, EventKind.DISCONNECTED):
            client, since_s = connected.pop(event.connection_id, (None, 0.0))
            if client is not None:
                healthy_s[client] += event.time_s - since_s
                if event.kind is EventKind.SUSPECTED and event.cause != Cause.TCP_RESET:
                    mistakes[client] += 1
                    mistake_s.append(event.time_s)
    for client, since_s in connected.values():
        healthy_s[client] += scenario.horizon_s - since_s
    return Observed(0, np.empty(0), 0, mistakes, np.array(mistake_s), healthy_s)
