"""A graceful deploy: the node sends its clients away in order, ends, and the next one starts.

    clients          |  network  |  gateway node        |  other nodes
    close frame 1001 |<----------|  stops accepting, closes in order, flushes its records, ends
    come back        |------------------------------------>|  sessions resumed, if their records are kept

Meaning: a rolling deploy, a scale-in. Nothing is lost that the node could still say.
"""

from __future__ import annotations

from harness.catalogue.fault import ServerFault

__all__ = ["NodeDrain"]


class NodeDrain(ServerFault):
    """Closed with 1001, then gone for a while or for good."""

    kind = "node_drain"
    summary = "a graceful deploy of one node"
    on_the_wire = "close frame 1001 to every client, FIN"
    is_real = True
    mechanism = "SIGTERM, then the next process on the same ports"
    cannot_show = "a load balancer that is told beforehand"
    example = "{kind: node_drain, at: 60s, node: 1, restart_after: 10s}"
