"""Power loss: nothing is sent, nothing is acknowledged, ever.

    client           |  network  |  gateway
    ✗ dark           |           |
                     |<----------|  ping, sent again and again: no ACK, no answer
                     |           |  only a missing answer tells - or TCP, after 924.6 s

Meaning: a pulled plug, an empty battery, a kernel panic. `send` on the gateway goes on succeeding.
"""

from __future__ import annotations

from typing import Literal

from scenarios.faults.base import (
    SOCKET_FILTER,
    ClientFault,
    ClientGone,
    Fault,
    ModelClient,
    PlannedFault,
    RealClient,
)

__all__ = ["DrawnHostCrash", "HostCrash"]


class DrawnHostCrash(ClientFault):
    """Silence that never ends."""

    kind = "host_crash"
    summary = "power loss: silence for ever"
    on_the_wire = "nothing: unacknowledged data, retransmissions"
    mechanism = SOCKET_FILTER
    cannot_show = "loss on the client's side of its own socket only: no ARP or ICMP unreachable from a router"
    theory = "U + (k−1)R + τ, raced by idle limit and TCP"
    example = "{kind: host_crash, share: 80%, at: {uniform: {low: 40s, high: 130s}}}"
    silent = True
    needs_socket_filter = True

    def real(self, client: RealClient, fault: PlannedFault) -> None:
        """Drop every inbound segment before it is acknowledged, and say nothing more."""
        client.lose(1)
        client.took_effect(fault)
        raise ClientGone

    def simulated(self, client: ModelClient, fault: PlannedFault) -> None:
        """Cut the way and die."""
        client.took_effect(fault)
        client.cut()
        client.die()


class HostCrash(Fault):
    """Power loss: nothing is sent, nothing is acknowledged, ever."""

    drawn = DrawnHostCrash

    kind: Literal["host_crash"]
