"""How gateway nodes know that one of them is gone: a lease that each renews, and its peers look at.

From nodes to the reaping of a gone node's sessions by one of its peers. A node that dies has renewed its lease
at most `renew` ago, so it is noticed between `ttl` − `renew` and `ttl` + `check` after its death. Renewals wait
for the node's loop as everything else does: a loop that stalls for longer than the lease is reaped alive.

As in the gateway (`reference_server/cluster.py`): a node that finds its lease lost, because the store was
flushed or because it was reaped, writes the records of all its connections again; it looks at once when the
store is back; and it reaps only when its own renewals have been in time for a whole ttl.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from harness.simulated.clock import Clock
from harness.simulated.gateway import Gateway
from harness.simulated.store import Store
from scenarios.gateway_nodes import Lease

__all__ = ["Leases"]


class Leases:
    """The leases of all nodes, in the store.

    Args:
        clock: simulated time.
        lease: its times.
        store: where the leases stand; while it is down nobody renews and nobody looks.
        phases: draws of when each node looks first.
    """

    def __init__(
        self, clock: Clock, lease: Lease, store: Store, phases: np.random.Generator
    ) -> None:
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
            for gone in [
                n for n, ends_s in self._ends_s.items() if ends_s <= now_s and n is not node
            ]:
                del self._ends_s[gone]
                node.reap(gone)
        timer = partial(node.loop.submit, 0.0, partial(self._look, node))
        self._clock.after(self._lease.check, timer)
