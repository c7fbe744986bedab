"""Every connection ends at once, and every client comes back: a thundering herd.

    clients          |  load balancer  |  gateway nodes
    RST              |<----- ✗ ------->|  RST: all sessions wait for their resume window
    back-off, jitter |                 |
    all come back    |---------------->|  handshakes and resumes: the loops are busy with nothing else,
                     |                 |  and the heartbeats of those who are back wait

Meaning: a load balancer or a proxy that restarts, a router that loses its state, a Wi-Fi that comes back. What
decides is the clients' back-off with jitter, and whether the gateway says "later" before it drowns.
"""

from __future__ import annotations

from harness.catalogue.fault import ServerFault

__all__ = ["ReconnectStorm"]


class ReconnectStorm(ServerFault):
    """All of the gateway's connections are reset from in between."""

    kind = "reconnect_storm"
    side = "network"
    summary = "every connection is reset at once, and all clients come back"
    on_the_wire = "RST in both directions"
    is_real = True
    mechanism = "the kernel aborts every client's socket (ss --kill)"
    cannot_show = "a load balancer that refuses new connections for a while"
    example = "{kind: reconnect_storm, at: 60s}"
