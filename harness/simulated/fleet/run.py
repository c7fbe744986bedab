"""Run a fleet, or one fleet a policy, in parts over the cores. The parts do not depend on how many cores there are.

From policies, a network and a seed to results. Scenario seconds alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from joblib import Parallel, delayed

from harness.simulated.fleet.draws import RoundTrips
from harness.simulated.fleet.machine import Machine, harmless_outages
from harness.simulated.fleet.outages import (
    BehindNat,
    ForgetfulNat,
    Harmless,
    OneFault,
    OutageProcess,
    RecurringOutages,
)
from harness.simulated.fleet.record import Record
from harness.simulated.fleet.result import FleetResult
from reference_server.errors import FlatlineError
from reference_server.liveness.heartbeat_policy import LivenessPolicy, Ping
from scenarios.client_rules import Reconnect, Traffic
from scenarios.faults import Fault
from scenarios.faults.frozen import Frozen
from scenarios.faults.host_crash import HostCrash
from scenarios.faults.nat_timeout import NatTimeout
from scenarios.faults.network_cut import NetworkCut
from scenarios.network import Network, kept_by_pings
from scenarios.schema import Scenario

__all__ = ["FleetError", "fleet_sweep", "run_fleet"]

_FAULTS = (HostCrash, NetworkCut, Frozen, NatTimeout)
_LAYERS = "close_detection other than all, and tcp_keepalive"
_PART = 25_000  # clients whose state fits a core's cache

_Part = tuple[LivenessPolicy, int, int, np.random.SeedSequence]


class FleetError(FlatlineError):
    """The fleet cannot run this: it says what, and what is allowed."""


def run_fleet(
    policy: LivenessPolicy,
    network: Network,
    *,
    clients: int,
    duration_s: float,
    rng: np.random.Generator,
    fault: Fault | None = None,
    ramp_s: float | None = None,
    reconnect: Reconnect | None = None,
    n_jobs: int = 1,
) -> FleetResult:
    """Run one fleet under one policy.

    Clients connect evenly over the ramp. From its end on either each of them has the network's outages and
    is healthy, or each has the one fault and no outages, as in a scenario's plan.

    Args:
        policy: with a heartbeat; the idle limit counts, `max_sessions` does not.
        network: round trips, outages, retransmissions, a NAT before every client.
        clients: how many.
        duration_s: time after the ramp.
        rng: a generator with a seed sequence, which the parts' own are spawned from.
        fault: a silent one; its `share` is not used, all clients have it. None: healthy clients.
        ramp_s: None: the heartbeat interval, which makes every phase equally likely.
        reconnect: how dropped clients come back; None: the scenario's defaults.
        n_jobs: processes; -1 for all cores. Changes nothing but the time it takes.

    Raises:
        FleetError: no heartbeat, no clients, no time, a key that only the SimPy engine knows, a fault that is not
            silent or that another key contradicts.
    """
    seed = rng.bit_generator.seed_seq
    if not isinstance(seed, np.random.SeedSequence):
        raise FleetError("rng has no SeedSequence; allowed: a generator of numpy.random.default_rng")
    return fleet_sweep(
        [policy],
        network,
        clients=clients,
        duration_s=duration_s,
        seed=seed,
        fault=fault,
        ramp_s=ramp_s,
        reconnect=reconnect,
        n_jobs=n_jobs,
    )[0]


def fleet_sweep(
    policies: Sequence[LivenessPolicy],
    network: Network,
    *,
    clients: int,
    duration_s: float,
    seed: np.random.SeedSequence,
    fault: Fault | None = None,
    ramp_s: float | None = None,
    reconnect: Reconnect | None = None,
    n_jobs: int = -1,
) -> list[FleetResult]:
    """Run one fleet a policy on the same network; results in the order of the policies.

    Arguments and errors are those of :func:`run_fleet`; ``clients`` is of each fleet. ``seed`` gives every
    policy draws of its own: the same seed, policies and sizes give the same results, whatever ``n_jobs`` is.
    """
    for policy in policies:
        _check(policy, network, clients, duration_s, ramp_s, fault)
    if isinstance(fault, NatTimeout) and network.nat is not None:
        raise FleetError("network.nat and a nat_timeout fault: two NATs; allowed: one of them")
    if fault is not None and reconnect is not None and reconnect.idle_limit is not None:
        raise FleetError(
            f"idle_limit {reconnect.idle_limit:g}s: a client that leaves by itself competes with the detection "
            "of its fault; allowed: null with a fault"
        )
    parts: list[list[_Part]] = [
        [
            (policy, first, min(_PART, clients - first), child)
            for first, child in zip(starts, stream.spawn(len(starts)), strict=True)
        ]
        for policy, stream in zip(policies, seed.spawn(len(policies)), strict=True)
        for starts in [range(0, clients, _PART)]
    ]
    work = [part for parts_of_one in parts for part in parts_of_one]
    how = (network, clients, duration_s, fault, ramp_s, reconnect or Reconnect())
    if len(work) == 1:
        return [_run_part(work[0], *how)]
    # A process that is forked has imported all that it needs, which takes as long as a hundred thousand clients' day.
    pool = Parallel(n_jobs=n_jobs, backend="multiprocessing")
    done = iter(pool(delayed(_run_part)(part, *how) for part in work))
    return [FleetResult.merged([next(done) for _ in of_one]) for of_one in parts]


def not_simulated(scenario: Scenario) -> tuple[str, ...]:
    """What a scenario has and the fleet does not know: one sentence each, empty where it knows all.

    A fault, an incident, a detector or a layer that is added to scenarios is unknown until it is named here.
    """
    policy = scenario.liveness
    unknown = [
        *(
            f"fault {kind}"
            for kind in sorted({f.kind for f in scenario.faults if not isinstance(f, _FAULTS)})
        ),
        *(f"incident {kind}" for kind in sorted({i.kind for i in scenario.incidents})),
        *([f"detector {scenario.detector.kind}"] if not isinstance(scenario.detector, Ping) else []),
        *(["a network.nat and a nat_timeout fault together"] if _two_nats(scenario) else []),
        *(["stalls of the gateway"] if scenario.gateway.stalls else []),
        *([f"{scenario.gateway.nodes} gateway nodes"] if scenario.gateway.nodes > 1 else []),
        *(["max_sessions"] if policy.max_sessions is not None else []),
        *([_LAYERS] if _other_layers(policy) else []),
        *_other_keys(policy, scenario.network),
        *(["network.nat that counts data, and protocol pings"] if _pings_are_no_data(scenario) else []),
        *(["traffic"] if scenario.traffic != Traffic() else []),
        *(["sessions.survives_connection"] if scenario.sessions.survives_connection else []),
    ]
    return tuple(f"not simulated: {one}; the fleet does not know it" for one in unknown)


def _pings_are_no_data(scenario: Scenario) -> bool:
    nat = scenario.network.nat
    return nat is not None and nat.counts == "data" and scenario.detector.protocol_ping


def _two_nats(scenario: Scenario) -> bool:
    return scenario.network.nat is not None and any(
        isinstance(fault, NatTimeout) for fault in scenario.faults
    )


def _other_layers(policy: LivenessPolicy) -> bool:
    return policy.close_detection != "all" or policy.tcp_keepalive is not None


def _other_keys(policy: LivenessPolicy, network: Network) -> list[str]:
    """What a policy or a network says and the fleet does not know."""
    nat = network.nat
    if nat is not None and kept_by_pings(nat, policy):
        nat = None
    overlap = policy.heartbeat_timeout > (policy.heartbeat_interval or math.inf)
    unknown = {
        "a heartbeat_timeout above the heartbeat_interval": overlap,
        "network.nat with expiry close": nat is not None and nat.expiry == "close",
        "network.nat next to the gateway that pings do not keep": (
            nat is not None and nat.at == "gateway" and nat.counts != "to_gateway"
        ),
        "network.max_age": network.max_age is not None,
    }
    return [key for key, is_so in unknown.items() if is_so]


def _check(
    policy: LivenessPolicy,
    network: Network,
    clients: int,
    duration_s: float,
    ramp_s: float | None,
    fault: object,
) -> None:
    if policy.heartbeat_interval is None:
        raise FleetError("this policy has no heartbeat: heartbeat_interval is null")
    if _other_layers(policy):
        raise FleetError(f"{_LAYERS}: only the SimPy engine has them")
    if unknown := _other_keys(policy, network):
        raise FleetError(f"{', '.join(unknown)}: only the SimPy engine knows that")
    if clients < 1 or duration_s <= 0 or (ramp_s is not None and ramp_s < 0):
        raise FleetError(
            f"clients {clients}, duration_s {duration_s:g}, ramp_s {ramp_s}; allowed: at least one "
            "client, a duration above zero, a ramp of zero or more"
        )
    if fault is not None and not isinstance(fault, _FAULTS):
        raise FleetError(
            f"fault {getattr(fault, 'kind', fault)!r} is not silent; "
            "allowed: host_crash, network_cut, frozen, nat_timeout"
        )


def _run_part(
    part: _Part,
    network: Network,
    of_clients: int,
    duration_s: float,
    fault: Fault | None,
    ramp_s: float | None,
    reconnect: Reconnect,
) -> FleetResult:
    policy, first, clients, seed = part
    trips, spells, moves = (np.random.default_rng(s) for s in seed.spawn(3))
    ramp = policy.interval_s if ramp_s is None else ramp_s
    round_trips = RoundTrips(network.round_trip, policy.heartbeat_timeout, trips)
    behind_nat = network.nat is not None and not kept_by_pings(network.nat, policy)
    harmless = harmless_outages(policy, network, reconnect, ramp + duration_s)
    if behind_nat:  # a packet that comes late may find its mapping gone
        harmless = harmless._replace(longest_s=-1.0)
    way = _way(clients, network, fault, ramp, spells, harmless)
    if network.nat is not None and behind_nat:
        longest_gap_s = policy.interval_s + round_trips.fast_below_s / 2
        way = BehindNat(way, network.nat, longest_gap_s)
    record = Record(clients, policy, faults=fault is not None)
    Machine(
        policy,
        network,
        reconnect,
        connects_s=ramp * np.arange(first, first + clients) / of_clients,
        horizon_s=ramp + duration_s,
        way=way,
        round_trips=round_trips,
        record=record,
        one_fault=fault is not None,
        rng=moves,
    ).run()
    return record.result()


def _way(
    clients: int,
    network: Network,
    fault: Fault | None,
    ramp_s: float,
    rng: np.random.Generator,
    harmless: Harmless,
) -> OutageProcess:
    if fault is None:
        law = network.outages
        return (
            OutageProcess(clients) if law is None else RecurringOutages(clients, law, ramp_s, rng, harmless)
        )
    at_s = ramp_s + fault.at.sample(rng, clients)
    match fault:
        case NatTimeout():
            return ForgetfulNat(at_s, fault.nat.idle_timeout, resets=fault.nat.expiry == "reset")
        case Frozen():
            lengths = fault.thaw_after
        case NetworkCut():
            lengths = fault.heal_after
        case _:
            lengths = None
    lengths_s = None if lengths is None else lengths.sample(rng, clients)
    return OneFault(at_s, lengths_s, acknowledges=isinstance(fault, Frozen))
