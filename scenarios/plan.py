"""The fault plan: which client suffers what, and when. Drawn once from the scenario's seed, run by both engines.

From a scenario to a plan; injects nothing. Times are scenario seconds from the run's origin.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import orjson
from pydantic import BaseModel

from scenarios.faults.base import Fault, PlannedFault
from scenarios.faults.incidents import DrawnGatewayStall, NodeIncident, PlannedIncident
from scenarios.faults.registry import read_parameters
from scenarios.schema import Scenario

__all__ = ["TRACED_CLIENTS", "Plan", "PlannedOutage", "make_plan"]

TRACED_CLIENTS = 16
"""Of each fault: one of them is drawn, whom the fault met at nearly the same phase of the ping in every engine."""


@dataclass(frozen=True, slots=True)
class PlannedOutage:
    """A short loss of a healthy client's network."""

    client: int
    at_s: float
    length_s: float


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything random that both engines must share."""

    seed: int
    clients: int
    ramp_s: float
    horizon_s: float
    faults: tuple[PlannedFault, ...]
    outages: tuple[PlannedOutage, ...]
    watches: dict[int, tuple[int, ...]]  # watching client -> the clients whose user it watches
    incidents: tuple[PlannedIncident, ...] = ()
    first_nodes: tuple[int, ...] = ()  # of each client: the node, from 1, that it connects to first

    def connect_at_s(self, client: int) -> float:
        """When the ramp has this client connect."""
        return self.ramp_s * client / self.clients

    def first_node(self, client: int) -> int | None:
        """The node, counted from 1, that a client connects to first; None: whichever the balancer picks.

        A connection after the first one goes to any node that is there: a load balancer remembers no client.
        """
        return self.first_nodes[client] if self.first_nodes else None

    def save(self, path: Path) -> None:
        """Write the plan as JSON."""
        options = orjson.OPT_NON_STR_KEYS | orjson.OPT_INDENT_2
        path.write_bytes(orjson.dumps(asdict(self), default=BaseModel.model_dump, option=options))

    @classmethod
    def load(cls, path: Path) -> Plan:
        """Read what :meth:`save` wrote.

        Raises:
            OSError: no such file.
            ValueError, KeyError, TypeError: not a plan.
        """
        raw = orjson.loads(path.read_bytes())
        first_nodes = raw.pop("homes" if "homes" in raw else "first_nodes")  # `homes`: written by 0.1.0
        for one in (*raw["faults"], *raw["incidents"]):
            one["params"] = read_parameters(one["kind"], one["params"])
        return cls(
            **{
                **raw,
                "faults": tuple(PlannedFault(**fault) for fault in raw["faults"]),
                "outages": tuple(PlannedOutage(**outage) for outage in raw["outages"]),
                "watches": {int(k): tuple(v) for k, v in raw["watches"].items()},
                "incidents": tuple(PlannedIncident(**one) for one in raw["incidents"]),
                "first_nodes": tuple(first_nodes),
            }
        )


def make_plan(scenario: Scenario) -> Plan:
    """Draw the plan of a scenario: the same seed gives the same plan.

    Each client has at most one fault. Clients without one are the healthy ones that false suspicions
    are counted on and that watch the others.
    """
    who, when, healing, watching, outage, incident, spread = (
        np.random.default_rng(s) for s in np.random.SeedSequence(scenario.seed).spawn(7)
    )
    shuffled = who.permutation(scenario.clients)
    faults: list[PlannedFault] = []
    for fault in scenario.faults:
        count = round(fault.share * scenario.clients)
        hit = shuffled[len(faults) : len(faults) + count]
        at_s = scenario.ramp + fault.at.sample(when, len(hit))
        faults += _planned(fault, hit.tolist(), at_s.tolist(), scenario, healing)
    healthy = np.sort(shuffled[len(faults) :])
    return Plan(
        seed=scenario.seed,
        clients=scenario.clients,
        ramp_s=scenario.ramp,
        horizon_s=scenario.horizon_s,
        faults=tuple(faults),
        outages=_outages(scenario, healthy.tolist(), outage),
        watches=_watches(faults, healthy.tolist(), scenario.sessions.watchers_per_user, watching),
        incidents=_incidents(scenario, incident),
        first_nodes=_first_nodes(scenario, spread),
    )


def _planned(
    fault: Fault, clients: list[int], at_s: list[float], scenario: Scenario, rng: np.random.Generator
) -> list[PlannedFault]:
    """Plan one fault of the scenario for all the clients that it hits."""
    n = len(clients)
    relogin = None if fault.drawn.user_stays else scenario.reconnect.relogin
    logs_in_s: list[float | None] = [None] * n
    if relogin is not None:
        tries = rng.random(n) < relogin.share
        after_s = relogin.after.sample(rng, n).tolist()
        logs_in_s = [wait if does else None for does, wait in zip(tries, after_s, strict=True)]
    heals_s = [None] * n if fault.healing is None else fault.healing.sample(rng, n).tolist()
    return [
        PlannedFault(
            fault_id=f"{fault.label}-{i:05d}",
            fault=fault.label,
            kind=fault.kind,
            client=clients[i],
            at_s=at_s[i],
            heal_after_s=heals_s[i],
            relogin_after_s=logs_in_s[i],
            traced=i < TRACED_CLIENTS,
            params=params,
        )
        for i, params in enumerate(fault.draw(n, scenario.reconnect, rng))
    ]


def _watches(
    faults: list[PlannedFault], healthy: list[int], per_user: int, rng: np.random.Generator
) -> dict[int, tuple[int, ...]]:
    """Have healthy clients watch the users of faulted ones: for each user as many different ones as wanted."""
    watches: dict[int, list[int]] = {}
    drawn = _distinct(len(faults), min(per_user, len(healthy)), len(healthy), rng)
    for fault, watchers in zip(faults, drawn.tolist(), strict=True):
        for watcher in watchers:
            watches.setdefault(healthy[watcher], []).append(fault.client)
    return {watcher: tuple(watched) for watcher, watched in sorted(watches.items())}


def _distinct(rows: int, count: int, pool: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Draw ``count`` different numbers below ``pool`` in each of ``rows`` rows, shape (rows, count)."""
    if count * 4 > pool:
        return rng.permuted(np.tile(np.arange(pool), (rows, 1)), axis=1)[:, :count]
    drawn = rng.integers(pool, size=(rows, count))
    while (twice := (np.diff(np.sort(drawn, axis=1), axis=1) == 0).any(axis=1)).any():
        drawn[twice] = rng.integers(pool, size=(int(twice.sum()), count))
    return drawn


def _outages(scenario: Scenario, healthy: list[int], rng: np.random.Generator) -> tuple[PlannedOutage, ...]:
    """Draw a Poisson process of outages for each healthy client, the next one after the last has ended."""
    law = scenario.network.outages
    if law is None:
        return ()
    drawn: list[PlannedOutage] = []
    who = np.array(healthy, dtype=np.int64)
    at_s = scenario.ramp + rng.exponential(law.every, len(who))
    while len(who := who[at_s < scenario.horizon_s]):
        at_s = at_s[at_s < scenario.horizon_s]
        lengths_s = law.length.sample(rng, len(who))
        drawn += map(PlannedOutage, who.tolist(), at_s.tolist(), lengths_s.tolist())
        at_s = at_s + lengths_s + rng.exponential(law.every, len(who))
    return tuple(sorted(drawn, key=lambda outage: (outage.client, outage.at_s)))


def _first_nodes(scenario: Scenario, rng: np.random.Generator) -> tuple[int, ...]:
    """Spread the clients over the nodes at random, as a load balancer would."""
    nodes = scenario.gateway.nodes
    return tuple(rng.integers(1, nodes + 1, scenario.clients).tolist()) if nodes > 1 else ()


def _incidents(scenario: Scenario, rng: np.random.Generator) -> tuple[PlannedIncident, ...]:
    """Draw the scenario's incidents, and the random stalls of each node; in order of time."""
    drawn = []
    for incident in scenario.incidents:
        at_s = scenario.ramp + float(incident.at.sample(rng, 1)[0])
        law = incident.lasting
        lasts_s = None if law is None else float(law.sample(rng, 1)[0])
        node = incident.node if isinstance(incident, NodeIncident) else None
        drawn.append(
            PlannedIncident(
                incident.label, incident.kind, node, at_s, lasts_s, incident.drawn(**incident.parameters())
            )
        )
    stalls = scenario.gateway.stalls
    for node in range(1, scenario.gateway.nodes + 1) if stalls else ():
        assert stalls is not None
        at_s, n = float(rng.exponential(stalls.every)), 0
        while at_s < scenario.horizon_s:
            lasts_s = float(stalls.length.sample(rng, 1)[0])
            stall_id = f"stall-{node}-{n:05d}"
            drawn.append(PlannedIncident(stall_id, "gateway_stall", node, at_s, lasts_s, DrawnGatewayStall()))
            at_s += lasts_s + float(rng.exponential(stalls.every))
            n += 1
    return tuple(sorted(drawn, key=lambda one: (one.at_s, one.incident_id)))
