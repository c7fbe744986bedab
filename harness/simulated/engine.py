"""The simulated engine: run a plan in a SimPy model, leave the event log of the run.

From a scenario and its plan to events in scenario time. It drives the gateway's own detector over
modelled clients, network and store; it knows scenario time alone. Measures nothing.

What the model leaves out: bandwidth, TLS, clock error, losses within a handshake, and the loop time of anything
but heartbeats, frames and handshakes. See the modules for what each part does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from harness.simulated.clients import Client
from harness.simulated.clock import Clock
from harness.simulated.event_writer import EventLog, StoreWatch
from harness.simulated.middle import Middle
from harness.simulated.model import Model
from harness.simulated.network import Network, RoundTrips
from harness.simulated.nodes import Nodes, happen
from harness.simulated.presence import ExpiryNews, Presence
from harness.simulated.store import Store
from reference_server.events import Event, EventKind
from scenarios.client_rules import TrafficOneWay
from scenarios.distributions import Distribution
from scenarios.plan import Plan
from scenarios.schema import Scenario

__all__ = ["simulate"]

_SAMPLES = 250  # of the store in a run, at most one a second
_GRAIN = 0x677261696E  # sets one draw for the run apart from all others
_STREAM = 0x73696D  # sets the model's draws apart from those that made the plan


def simulate(
    scenario: Scenario, plan: Plan, *, progress: Callable[[float], None] | None = None
) -> list[Event]:
    """Run a plan; the same plan and scenario give the same events.

    1. Build the model: the gateway's nodes, the store, the way to them, the clients.
    2. Put the plan on the clock: connections, faults, outages, incidents.
    3. Run to the horizon.

    Args:
        scenario: the policy, the network's laws, how clients come back.
        plan: who suffers what, when; and the seed.
        progress: told how much of the run is done, 0 to 1.

    Returns:
        Events in time order, source `simulation`, scenario seconds from the run's origin.
    """
    clock = Clock(plan.horizon_s)
    log = EventLog(clock)
    log.write(EventKind.RUN_STARTED, detail={"clients": plan.clients})
    model, nodes, clients = _build(_with_drawn_grain(scenario, plan.seed), plan, clock, log)

    clock.at(plan.ramp_s, lambda: log.write(EventKind.STEADY, detail={"clients": plan.clients}))
    for client in clients:
        clock.at(plan.connect_at_s(client.index), client.come)
    for fault in plan.faults:
        clock.at(fault.at_s, partial(clients[fault.client].suffer, fault))
    for outage in plan.outages:
        clock.at(outage.at_s, partial(clients[outage.client].outage, outage))

    for incident in plan.incidents:
        clock.at(incident.at_s, partial(happen, incident, model, nodes))

    step_s = max(1.0, plan.horizon_s / _SAMPLES)
    model.store_watch.sample_every(step_s)
    if progress is not None:
        _report(clock, step_s, progress)
    clock.env.run(until=plan.horizon_s)
    log.write(EventKind.RUN_ENDED)
    if progress is not None:
        progress(1.0)
    return log.events


def _with_drawn_grain(scenario: Scenario, seed: int) -> Scenario:
    """Draw, once for the run, by how much a foreign server's coarse timers make its times longer."""
    heartbeat = scenario.target.heartbeat if scenario.target is not None else None
    grain = heartbeat.grain_at(scenario.speedup) if heartbeat is not None else None
    if heartbeat is None or grain is None:
        return scenario
    share, deadline_share = np.random.default_rng([seed, _GRAIN]).random(2)
    interval_s = grain.interval_s + float(share) * grain.interval_spread_s
    timeout_s = grain.timeout_s + float(deadline_share) * grain.timeout_spread_s
    if heartbeat.model == "next_tick":
        timeout_s = interval_s
    times = {"heartbeat_interval": interval_s, "heartbeat_timeout": timeout_s}
    return scenario.model_copy(update={"liveness": scenario.liveness.model_copy(update=times)})


def _build(scenario: Scenario, plan: Plan, clock: Clock, log: EventLog) -> tuple[Model, Nodes, list[Client]]:
    round_trips, phases, back_offs, services, picks, looks, lags, beats, kernel, up, down, work = (
        np.random.default_rng(s) for s in np.random.SeedSequence([plan.seed, _STREAM]).spawn(12)
    )
    policy, rules, traffic = scenario.liveness, scenario.records, scenario.traffic
    network = Network(
        clock,
        RoundTrips(scenario.network.round_trip, round_trips),
        scenario.network.rto_ladder,
        policy.tcp_user_timeout,
        partial(kernel.uniform, 0.0, scenario.network.give_up_lag),
    )
    expiry_lags = RoundTrips(scenario.store.expiry_lag, lags)
    session_ttl_s, status_ttl_s = (
        (policy.session_ttl, policy.status_ttl) if rules.expire else (math.inf, math.inf)
    )
    store = Store(clock, session_ttl_s, status_ttl_s, expiry_lags.next_s)
    model = Model(
        scenario,
        clock,
        log,
        network,
        store,
        StoreWatch(clock, store, log),
        Middle(clock, network, scenario.network, scenario.detector),
        Presence(network, log),
        busy=traffic.takes_time or any(incident.params.stops_loop for incident in plan.incidents),
        phases=phases,
        services=services,
        back_offs=back_offs,
        client_beats=beats,
        to_gateway=_bursts(traffic.to_gateway, up),
        to_client=_bursts(traffic.to_client, down),
        frame_service=RoundTrips(traffic.service, work),
    )
    if scenario.store.announces_expiry:
        ExpiryNews(clock, store, model.presence, expiry_lags)
    nodes = Nodes(model, looks, picks)
    faults = {fault.client: fault for fault in plan.faults}
    clients = [
        Client(index, model, nodes, plan.first_node(index), faults.get(index))
        for index in range(plan.clients)
    ]
    for watcher, watched in plan.watches.items():
        clients[watcher].watched = tuple(watched)
    return model, nodes, clients


def _bursts(traffic: TrafficOneWay | None, rng: np.random.Generator) -> RoundTrips:
    """Draws of the time between two bursts; of no traffic nothing is drawn."""
    return RoundTrips(Distribution(constant=0.0) if traffic is None else traffic.every, rng)


def _report(clock: Clock, step_s: float, progress: Callable[[float], None]) -> None:
    progress(clock.now_s / clock.horizon_s)
    clock.after(step_s, lambda: _report(clock, step_s, progress))
