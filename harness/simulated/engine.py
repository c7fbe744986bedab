"""The simulated engine: run a plan in a SimPy model, leave the event log of the run.

From a scenario and its plan to events in scenario time. It drives the gateway's own detector over
modelled clients, network and store; `speedup` has no meaning here. Measures nothing.

What the model leaves out: bandwidth, TLS, clock error, losses within a handshake, and the loop time of anything
but heartbeats, frames and handshakes. See the modules for what each part does.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count

import numpy as np

from harness.simulated.clients import Client, ClientBeating, Surroundings
from harness.simulated.clock import Clock
from harness.simulated.event_loop import Loop
from harness.simulated.event_writer import EventLog, StoreWatch
from harness.simulated.gateway import Directory, Gateway
from harness.simulated.network import Network, RoundTrips
from harness.simulated.nodes import Leases, Nodes, happen
from harness.simulated.presence import ExpiryNews, Presence
from harness.simulated.store import Store
from reference_server.events import Event, EventKind
from reference_server.liveness.kinds import ClientBeats, Detectors
from scenarios.plan import Plan
from scenarios.schema import Scenario

__all__ = ["simulate"]

_SAMPLES = 250  # of the store in a run, at most one a second
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
    store, store_watch, nodes, clients = _build(scenario, plan, clock, log)

    clock.at(plan.ramp_s, lambda: log.write(EventKind.STEADY, detail={"clients": plan.clients}))
    for client in clients:
        clock.at(plan.connect_at_s(client.index), client.come)
    for fault in plan.faults:
        clock.at(fault.at_s, lambda fault=fault: clients[fault.client].suffer(fault))  # type: ignore[misc]
    for outage in plan.outages:
        clock.at(outage.at_s, lambda outage=outage: clients[outage.client].outage(outage))  # type: ignore[misc]

    for incident in plan.incidents:
        clock.at(incident.at_s, partial(happen, incident, clock, nodes, store, log))

    step_s = max(1.0, plan.horizon_s / _SAMPLES)
    store_watch.sample_every(step_s)
    if progress is not None:
        _report(clock, step_s, progress)
    clock.env.run(until=plan.horizon_s)
    log.write(EventKind.RUN_ENDED)
    if progress is not None:
        progress(1.0)
    return log.events


def _build(
    scenario: Scenario, plan: Plan, clock: Clock, log: EventLog
) -> tuple[Store, StoreWatch, Nodes, list[Client]]:
    round_trips, phases, back_offs, services, picks, looks, lags, beats, kernel = (
        np.random.default_rng(s) for s in np.random.SeedSequence([plan.seed, _STREAM]).spawn(9)
    )
    policy, rules = scenario.liveness, scenario.records
    network = Network(
        clock,
        RoundTrips(scenario.network.round_trip, round_trips),
        scenario.network.rto_ladder,
        policy.tcp_user_timeout,
        partial(kernel.uniform, 0.0, lag_s) if (lag_s := scenario.network.give_up_lag) else None,
    )
    expiry_lags = RoundTrips(scenario.store.expiry_lag, lags)
    session_ttl_s, status_ttl_s = (
        (policy.session_ttl, policy.status_ttl) if rules.expire else (math.inf, math.inf)
    )
    store = Store(session_ttl_s, status_ttl_s, expiry_lags.next_s)
    store_watch = StoreWatch(clock, store, log)
    presence = Presence(network, log)
    if scenario.store.announces_expiry:
        ExpiryNews(clock, store, presence, expiry_lags)
    model, directory = scenario.gateway, Directory()
    stalls = any(incident.kind == "gateway_stall" for incident in plan.incidents)
    numbers: dict[str, Iterator[int]] = defaultdict(lambda: count(1))

    def make(name: str) -> Gateway:
        return Gateway(
            name,
            policy,
            kind=scenario.detector,
            rules=rules,
            refuse_second_login=scenario.sessions.second_login == "refuse",
            clock=clock,
            network=network,
            store=store,
            presence=presence,
            directory=directory,
            log=log,
            phases=phases,
            detectors=Detectors(scenario.detector, policy, phases),
            loop=Loop(clock, model, services, stalls=stalls),
            numbers=numbers[name],
        )

    leases = Leases(clock, model.lease, store, looks)
    nodes = Nodes(model.nodes, make, leases, picks)
    beating = None
    if isinstance(scenario.detector, ClientBeats) and policy.heartbeat_interval is not None:
        beating = ClientBeating(clock, network, policy.heartbeat_interval, beats)
    around = Surroundings(
        clock, network, nodes, scenario.network.nat, log, store_watch, scenario.reconnect, back_offs, beating
    )
    faults = {fault.client: fault for fault in plan.faults}
    clients = [Client(index, around, faults.get(index)) for index in range(plan.clients)]
    for client in clients:
        client.home = plan.first_node(client.index)
    for watcher, watched in plan.watches.items():
        clients[watcher].watched = tuple(watched)
    return store, store_watch, nodes, clients


def _report(clock: Clock, step_s: float, progress: Callable[[float], None]) -> None:
    progress(clock.now_s / clock.horizon_s)
    clock.after(step_s, lambda: _report(clock, step_s, progress))
