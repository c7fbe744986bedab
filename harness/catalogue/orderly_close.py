"""A tab is closed: the page says goodbye.

    client           |  network  |  gateway
    close frame 1000 |---------->|  end of the session is known after one way
    FIN              |---------->|  the records go when the resume window is over

Meaning: somebody closes the tab or leaves the page, and `pagehide` closes the WebSocket in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.catalogue.fault import ClientFault, ClientGone, RealClient
from harness.faults import PlannedFault
from reference_server.events import Cause

if TYPE_CHECKING:
    from harness.simulated.clients import Client
    from harness.simulated.connection import Connection

__all__ = ["OrderlyClose"]


class OrderlyClose(ClientFault):
    """Close frame, then FIN; the client does not wait for the answer."""

    kind = "orderly_close"
    summary = "the tab is closed"
    on_the_wire = "close frame, FIN"
    mechanism = "close frame"
    cannot_show = "nothing: this is what a closing tab sends"
    theory = "one way"
    example = "{kind: orderly_close, share: 10%, at: {uniform: {low: 40s, high: 90s}}}"

    def real(self, client: RealClient, fault: PlannedFault) -> None:
        """Close and be gone."""
        client.took_effect(fault, client.g.at_s(fault.at_s), self.mechanism)
        client.wire.close(1000)
        raise ClientGone

    def simulated(self, client: Client, fault: PlannedFault, connection: Connection) -> None:
        """Die; the end arrives one way later."""
        client.took_effect(fault)
        client.die()
        client.around.network.end_by_client(connection, Cause.CLOSE_FRAME)
