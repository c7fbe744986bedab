"""A tab is closed: the page says goodbye.

    client           |  network  |  gateway
    close frame 1000 |---------->|  end of the session is known after one way
    FIN              |---------->|  the records go when the resume window is over

Meaning: somebody closes the tab or leaves the page, and `pagehide` closes the WebSocket in order.
"""

from __future__ import annotations

from typing import Literal

from reference_server.events import Cause
from scenarios.faults.base import ClientFault, ClientGone, Fault, ModelClient, PlannedFault, RealClient

__all__ = ["DrawnOrderlyClose", "OrderlyClose"]


class DrawnOrderlyClose(ClientFault):
    """Close frame, then FIN; the client does not wait for the answer."""

    kind = "orderly_close"
    summary = "the tab is closed"
    on_the_wire = "close frame, FIN"
    mechanism = "close frame"
    cannot_show = "nothing: this is what a closing tab sends"
    theory = "one way"
    example = "{kind: orderly_close, share: 10%, at: {uniform: {low: 40s, high: 90s}}}"
    announced = True

    def real(self, client: RealClient, fault: PlannedFault) -> None:
        """Close and be gone."""
        client.took_effect(fault)
        client.wire.close(1000)
        raise ClientGone

    def simulated(self, client: ModelClient, fault: PlannedFault) -> None:
        """Die; the end arrives one way later."""
        client.took_effect(fault)
        client.die(Cause.CLOSE_FRAME)


class OrderlyClose(Fault):
    """The tab is closed: a close frame, then FIN."""

    drawn = DrawnOrderlyClose

    kind: Literal["orderly_close"]
