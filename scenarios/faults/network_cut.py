"""The way is cut in both directions; it heals after a time, or never.

    client           |  network  |  gateway
    alive            |    ✗      |  pings stay unacknowledged, TCP sends them again: 0.2, 0.4, 0.8 … s
                     |  healed   |
                     |<----------|  the first retransmission after the healing brings all that was kept
    answers          |---------->|  recovered - if the gateway has not given up before

Meaning: a tunnel, a lift, a dead switch, an unplugged cable. TCP turns the loss into delay.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from scenarios.distributions import Law
from scenarios.faults.base import SOCKET_FILTER, ClientFault, Fault, ModelClient, PlannedFault, RealClient

__all__ = ["DrawnNetworkCut", "NetworkCut"]


class DrawnNetworkCut(ClientFault):
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
    needs_socket_filter = True

    def real(self, client: RealClient, fault: PlannedFault) -> None:
        """Filter the socket, and take the filter off when it heals."""
        client.lose(1)
        client.took_effect(fault)

        def heal() -> None:
            client.lose(0)
            client.healed(fault)

        if fault.heal_after_s is not None:
            client.after(fault.heal_after_s, heal)

    def simulated(self, client: ModelClient, fault: PlannedFault) -> None:
        """Cut the way, and mend it when it heals."""
        client.took_effect(fault)
        client.cut()

        def heal() -> None:
            client.healed(fault)
            client.mend()

        if fault.heal_after_s is not None:
            client.after(fault.heal_after_s, heal)


class NetworkCut(Fault):
    """The way is cut in both directions; it heals after a time, or never."""

    drawn = DrawnNetworkCut

    kind: Literal["network_cut"]
    heal_after: Annotated[Law | None, Field(description="law of the cut's length; null: never")] = None
