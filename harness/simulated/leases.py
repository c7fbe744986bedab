"""How gateway nodes know that one of them is gone: a lease that each renews, and its peers look at.

From nodes to the reaping of a gone node's sessions by one of its peers. A node that dies has renewed its lease
at most `renew` ago, so it is noticed between `ttl` − `renew` and `ttl` + `check` after its death. Renewals wait
for the node's loop as everything else does: a loop that stalls for longer than the lease is reaped alive.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from harness.simulated.clock import Clock
from harness.simulated.gateway import Gateway
from harness.simulated.store import Store
from scenarios.schema import Lease

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

    def join(self, node: Gateway) -> None:
        """A node has started."""
        self._renew(node)
        first_s = float(self._phases.uniform(0.0, self._lease.check))
        self._clock.after(first_s, partial(self._look, node))

    def leave(self, node: Gateway) -> None:
        """A node has ended in order."""
        self._ends_s.pop(node, None)

    def _renew(self, node: Gateway) -> None:
        if not node.alive:
            return
        if self._store.available:
            self._ends_s[node] = self._clock.now_s + self._lease.ttl
        timer = partial(node.loop.submit, 0.0, partial(self._renew, node))
        self._clock.after(self._lease.renew, timer)

    def _look(self, node: Gateway) -> None:
        if not node.alive:
            return
        if self._store.available:
            now_s = self._clock.now_s
            # One step in the store each: whoever takes the ended lease away has the reaping to do.
            for gone in [
                n for n, ends_s in self._ends_s.items() if ends_s <= now_s and n is not node
            ]:
                del self._ends_s[gone]
                node.reap(gone)
        timer = partial(node.loop.submit, 0.0, partial(self._look, node))
        self._clock.after(self._lease.check, timer)
