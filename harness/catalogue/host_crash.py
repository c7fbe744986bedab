"""Power loss: nothing is sent, nothing is acknowledged, ever.

    client           |  network  |  gateway
    ✗ dark           |           |
                     |<----------|  ping, sent again and again: no ACK, no answer
                     |           |  only a missing answer tells - or TCP, after 924.6 s

Meaning: a pulled plug, an empty battery, a kernel panic. `send` on the gateway goes on succeeding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.catalogue.fault import ClientFault, RealClient
from harness.catalogue.silence import SOCKET_FILTER, fall_silent
from harness.faults import PlannedFault

if TYPE_CHECKING:
    from harness.simulated.clients import Client
    from harness.simulated.connection import Connection

__all__ = ["HostCrash"]


class HostCrash(ClientFault):
    """Silence that never ends."""

    kind = "host_crash"
    summary = "power loss: silence for ever"
    on_the_wire = "nothing: unacknowledged data, retransmissions"
    mechanism = SOCKET_FILTER
    cannot_show = (
        "loss on the client's side of its own socket only: no ARP or ICMP unreachable from a router"
    )
    theory = "U + (k−1)R + τ, raced by idle limit and TCP"
    example = "{kind: host_crash, share: 80%, at: {uniform: {low: 40s, high: 130s}}}"
    silent = True

    def real(self, client: RealClient, fault: PlannedFault) -> None:
        """Drop every inbound segment before it is acknowledged, and say nothing more."""
        fall_silent(client)
        client.took_effect(fault, client.g.at_s(fault.at_s), self.mechanism)

    def simulated(self, client: Client, fault: PlannedFault, connection: Connection) -> None:
        """Cut the way and die."""
        client.took_effect(fault)
        client.cut()
        client.die()
