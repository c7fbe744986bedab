"""A page is reloaded: an orderly close, and the same session id comes back on a new connection.

    client           |  network  |  gateway
    close frame 1001 |---------->|  the session waits for its resume window
       page loads    |           |
    connect, old id  |---------->|  within the window: resumed;  after it: session unknown

Meaning: F5. The session outlives the connection, if the gateway lets it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from reference_server.events import Cause
from scenarios.client_rules import Reconnect
from scenarios.faults.base import ClientFault, Fault, ModelClient, PageReloaded, PlannedFault, RealClient

__all__ = ["DrawnRefresh", "Refresh"]


@dataclass(frozen=True)
class DrawnRefresh(ClientFault):
    """Close, wait as long as the page takes to load, connect with the stored session id."""

    page_load_s: float  # from the close to the new connection

    kind = "refresh"
    summary = "the page is reloaded and resumes its session"
    on_the_wire = "close frame, FIN; then a new connection"
    mechanism = "close frame"
    cannot_show = "nothing: this is what a reloading page sends, and the same session id comes back"
    theory = "one way; then the page's return competes with the resume window"
    example = "{kind: refresh, share: 10%, at: {uniform: {low: 40s, high: 90s}}}"
    announced = True
    user_stays = True

    def real(self, client: RealClient, fault: PlannedFault) -> None:
        """Close; the client comes back after the page's load."""
        client.took_effect(fault)
        client.wire.close(1001)
        client.wire = None
        client.expect_recovery(fault)
        raise PageReloaded(client.real_s(self.page_load_s))

    def simulated(self, client: ModelClient, fault: PlannedFault) -> None:
        """Leave the connection and come again."""
        client.took_effect(fault)
        client.leave(Cause.CLOSE_FRAME)
        client.expect_recovery(fault)
        client.after(self.page_load_s, client.come)


class Refresh(Fault):
    """The page is reloaded: an orderly close, then the same session again after `reconnect.page_load`."""

    drawn = DrawnRefresh

    kind: Literal["refresh"]

    def draw(self, count: int, reconnect: Reconnect, rng: np.random.Generator) -> list[DrawnRefresh]:
        """Draw how long each page takes to load."""
        return [DrawnRefresh(s) for s in reconnect.page_load.sample(rng, count).tolist()]
