"""A page is reloaded: an orderly close, and the same session id comes back on a new connection.

    client           |  network  |  gateway
    close frame 1001 |---------->|  the session waits for its resume window
       page loads    |           |
    connect, old id  |---------->|  within the window: resumed;  after it: session unknown

Meaning: F5. The session outlives the connection, if the gateway lets it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.catalogue.fault import ClientFault, PageReloaded, RealClient
from harness.faults import PlannedFault
from reference_server.events import Cause

if TYPE_CHECKING:
    from harness.simulated.clients import Client
    from harness.simulated.connection import Connection

__all__ = ["Refresh"]


class Refresh(ClientFault):
    """Close, wait as long as the page takes to load, connect with the stored session id."""

    kind = "refresh"
    summary = "the page is reloaded and resumes its session"
    on_the_wire = "close frame, FIN; then a new connection"
    mechanism = "close frame"
    cannot_show = "nothing: this is what a reloading page sends, and the same session id comes back"
    theory = "one way; then the page's return competes with the resume window"
    example = "{kind: refresh, share: 10%, at: {uniform: {low: 40s, high: 90s}}}"

    def real(self, client: RealClient, fault: PlannedFault) -> None:
        """Close; the client comes back after the page's load."""
        client.took_effect(fault, client.g.at_s(fault.at_s), self.mechanism)
        client.wire.close(1001)
        client.wire = None
        client.expect_recovery(fault)
        raise PageReloaded(fault.params["page_load_s"] / client.g.scenario.speedup)

    def simulated(self, client: Client, fault: PlannedFault, connection: Connection) -> None:
        """Leave the connection and come again."""
        client.took_effect(fault)
        client.leave()
        client.around.network.end_by_client(connection, Cause.CLOSE_FRAME)
        client.healing = fault
        client.around.clock.after(fault.params["page_load_s"], client.come)
