"""All gateway nodes and the load balancer before them: who is there, dies, ends in order, comes back.

A node that comes back is a new one of the same name: nothing of its memory is left.

How gateway nodes know that one of them is gone: a lease that each renews, and its peers look at.

From nodes to the reaping of a gone node's sessions by one of its peers. A node that dies has renewed its lease
at most `renew` ago, so it is noticed between `ttl` − `renew` and `ttl` + `check` after its death. Renewals wait
for the node's loop as everything else does: a loop that stalls for longer than the lease is reaped alive.

As in the gateway (`reference_server/cluster/lease.py`): a node that finds its lease lost, because the store was
flushed or because it was reaped, writes the records of all its connections again; it looks at once when the
store is back; and it reaps only when its own renewals have been in time for a whole ttl.

What happens to gateway nodes and to the store: stalls, crashes, deploys, restarts, flushes.

The plan says when; each is logged with its node when it takes effect and when its cause is gone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count

import numpy as np

from harness.simulated.clock import Clock
from harness.simulated.gateway import Gateway
from harness.simulated.model import Model
from harness.simulated.store import Store
from reference_server.events import EventKind
from scenarios.faults import PlannedIncident
from scenarios.faults.incidents import DrawnNodeCrash, DrawnNodeDrain, DrawnStoreRestart
from scenarios.gateway import Lease

__all__ = ["Nodes", "happen"]


class Leases:
    """The leases of all nodes, in the store.

    Args:
        clock: simulated time.
        lease: its times.
        store: where the leases stand; while it is down nobody renews and nobody looks.
        phases: draws of when each node looks first.
    """

    def __init__(self, clock: Clock, lease: Lease, store: Store, phases: np.random.Generator) -> None:
        self._clock = clock
        self._lease = lease
        self._store = store
        self._phases = phases
        self._ends_s: dict[Gateway, float] = {}
        self._epoch: dict[Gateway, int] = {}  # of the store that the node's records are in
        self._in_time_since_s: dict[Gateway, float] = {}
        store.on_back = self._renew_all

    def join(self, node: Gateway) -> None:
        """A node has started."""
        self._epoch[node] = self._store.epoch
        self._in_time_since_s[node] = self._clock.now_s
        self._renew_now(node)
        self._clock.after(self._lease.renew, partial(self._renew, node))
        first_s = float(self._phases.uniform(0.0, self._lease.check))
        self._clock.after(first_s, partial(self._look, node))

    def leave(self, node: Gateway) -> None:
        """A node has ended in order."""
        self._ends_s.pop(node, None)
        self._epoch.pop(node, None)

    def _renew(self, node: Gateway) -> None:
        if not node.alive:
            return
        if self._store.available:
            self._renew_now(node)
        else:
            self._in_time_since_s[node] = float("inf")
        timer = partial(node.loop.submit, 0.0, partial(self._renew, node))
        self._clock.after(self._lease.renew, timer)

    def _renew_now(self, node: Gateway) -> None:
        now_s = self._clock.now_s
        lost = self._ends_s.get(node, now_s) <= now_s or self._epoch[node] != self._store.epoch
        self._ends_s[node] = now_s + self._lease.ttl
        self._epoch[node] = self._store.epoch
        self._in_time_since_s[node] = min(self._in_time_since_s[node], now_s)
        if lost:
            node.assert_records()

    def _renew_all(self) -> None:
        """The store is back: every node looks at its lease at once."""
        for node in list(self._epoch):
            if node.alive:
                self._in_time_since_s[node] = float("inf")
                node.loop.submit(0.0, partial(self._renew_now, node))

    def _look(self, node: Gateway) -> None:
        if not node.alive:
            return
        now_s = self._clock.now_s
        if self._store.available and now_s - self._in_time_since_s[node] >= self._lease.ttl:
            # One step in the store each: whoever takes the ended lease away has the reaping to do.
            for gone in [n for n, ends_s in self._ends_s.items() if ends_s <= now_s and n is not node]:
                del self._ends_s[gone]
                node.reap(gone)
        timer = partial(node.loop.submit, 0.0, partial(self._look, node))
        self._clock.after(self._lease.check, timer)


class Nodes:
    """The nodes, counted from 1.

    Args:
        model: how many, and what they share.
        looks: draws of when each looks at its peers' leases first.
        picks: draws of the node that a connection goes to.
    """

    def __init__(self, model: Model, looks: np.random.Generator, picks: np.random.Generator) -> None:
        gateway = model.scenario.gateway
        self._model = model
        self._leases = Leases(model.clock, gateway.lease, model.store, looks)
        self._picks = picks
        self._numbers: dict[str, Iterator[int]] = defaultdict(lambda: count(1))  # of connections, by node
        self._nodes = [self._started(f"node-{n}") for n in range(1, gateway.nodes + 1)]

    def __getitem__(self, number: int) -> Gateway:
        return self._nodes[number - 1]

    def pick(self, first: int | None) -> Gateway | None:
        """The node for a new connection: ``first``, else any that is there; None: there is none."""
        if first is not None and self[first].accepts:
            return self[first]
        if len(self._nodes) == 1:
            return self._nodes[0] if self._nodes[0].accepts else None
        there = [node for node in self._nodes if node.accepts]
        return there[int(self._picks.integers(len(there)))] if there else None

    def drain(self, number: int, spread_s: float) -> None:
        """A node ends in order, its closes spread over a time."""
        node = self[number]
        node.drain(spread_s, partial(self._leases.leave, node))

    def reset_connections(self) -> None:
        """All connections of all nodes are reset from in between; the nodes live on."""
        for node in self._nodes:
            if node.alive:
                node.reset_connections()

    def start(self, number: int) -> None:
        """A node is back, empty."""
        if not self[number].alive:
            self._nodes[number - 1] = self._started(self[number].node)

    def _started(self, name: str) -> Gateway:
        node = Gateway(name, self._model, self._numbers[name])
        self._leases.join(node)
        return node


def happen(incident: PlannedIncident, model: Model, nodes: Nodes) -> None:
    """Do a planned incident now; one that finds its node gone already does nothing and is not logged."""
    number = incident.node
    node = None if number is None else nodes[number]
    if node is not None and not node.alive:
        return
    name = "" if node is None else node.node
    detail = {
        "incident_id": incident.incident_id,
        "kind": incident.kind,
        "scheduled_s": incident.at_s,
        "mechanism": "model",
        "cuts_connections": incident.params.cuts_connections,
        "stops_loop": incident.params.stops_loop,
    }
    model.log.write(EventKind.INCIDENT_STARTED, node=name, detail=detail)
    ended = {"incident_id": incident.incident_id, "kind": incident.kind}
    over = partial(model.log.write, EventKind.INCIDENT_ENDED, node=name, detail=ended)

    def until_over(step: Callable[[], None], at_least_s: float = 0.0) -> None:
        def end() -> None:
            step()
            over()

        if incident.lasts_s is not None:
            model.clock.after(max(incident.lasts_s, at_least_s), end)

    match incident.kind:
        case "gateway_stall":
            assert node is not None and incident.lasts_s is not None
            node.loop.submit(incident.lasts_s, over)
        case "node_crash":
            assert node is not None and number is not None
            node.crash(host=incident.params == DrawnNodeCrash("host"))
            until_over(partial(nodes.start, number))
        case "node_drain":
            assert number is not None and isinstance(incident.params, DrawnNodeDrain)
            nodes.drain(number, incident.params.spread)
            until_over(partial(nodes.start, number), at_least_s=incident.params.spread)
        case "store_flush":
            model.store.flush()
        case "reconnect_storm":
            nodes.reset_connections()
        case "store_restart":
            model.store.stop(keeps=incident.params == DrawnStoreRestart(keeps=True))
            until_over(model.store.start)
        case _:
            raise ValueError(f"unknown incident {incident.kind!r} in the plan")
