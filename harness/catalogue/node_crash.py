"""A gateway node dies: its process, or its whole host.

    clients          |  network  |  gateway node        |  other nodes
    end of stream    |<----------|  ✗ by process: FIN, RST
    silence          |    ✗      |  ✗ by host: nothing
    come back        |------------------------------------>|  its lease runs out: they reap its sessions

Meaning: a killed container, a lost machine. Its records stay until the lease, or a TTL, or a restart ends them.
"""

from __future__ import annotations

from harness.catalogue.fault import ServerFault

__all__ = ["NodeCrash"]


class NodeCrash(ServerFault):
    """All connections of a node are gone; its half of the memory, too."""

    kind = "node_crash"
    summary = "a gateway node dies: its process, or its host"
    on_the_wire = "process: FIN or RST to every client; host: nothing"
    is_real = True
    mechanism = "SIGKILL of the node's process"
    cannot_show = "by: host (silence) is refused: a killed process's kernel sends FIN"
    example = "{kind: node_crash, at: 60s, node: 2, by: process, restart_after: 20s}"
