"""The way is cut in both directions; it heals after a time, or never.

    client           |  network  |  gateway
    alive            |    ✗      |  pings stay unacknowledged, TCP sends them again: 0.2, 0.4, 0.8 … s
                     |  healed   |
                     |<----------|  the first retransmission after the healing brings all that was kept
    answers          |---------->|  recovered - if the gateway has not given up before

Meaning: a tunnel, a lift, a dead switch, an unplugged cable. TCP turns the loss into delay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.catalogue.fault import ClientFault, RealClient
from harness.catalogue.silence import SOCKET_FILTER, end_silence, fall_silent
from harness.faults import PlannedFault

if TYPE_CHECKING:
    from harness.simulated.clients import Client
    from harness.simulated.connection import Connection

__all__ = ["NetworkCut"]


class NetworkCut(ClientFault):
    """Silence, perhaps with an end."""

    kind = "network_cut"
    summary = "the way is cut both ways, for a time or for good"
    on_the_wire = "nothing; after a healing TCP delivers what it kept"
    mechanism = SOCKET_FILTER
    cannot_show = "as host_crash; what the client's kernel itself would retransmit"
    theory = "as host_crash, raced by the healing and TCP's retransmissions"
    example = (
        "{kind: network_cut, share: 20%, at: {uniform: {low: 40s, high: 90s}}, "
        "heal_after: {exponential: {mean: 60s}}}"
    )
    silent = True

    def real(self, client: RealClient, fault: PlannedFault) -> None:
        """Filter the socket, and take the filter off when it heals."""
        fall_silent(client)
        client.took_effect(fault, client.g.at_s(fault.at_s), self.mechanism)

        def heal() -> None:
            if end_silence(client):
                client.healed(fault)

        if fault.heal_after_s is not None:
            client.at(client.g.now_s() + fault.heal_after_s / client.g.scenario.speedup, heal)

    def simulated(self, client: Client, fault: PlannedFault, connection: Connection) -> None:
        """Cut the way, and mend it when it heals."""
        client.took_effect(fault)
        client.cut()

        def heal() -> None:
            client.healed(fault)
            client.mend()

        if fault.heal_after_s is not None:
            client.around.clock.after(fault.heal_after_s, heal)
