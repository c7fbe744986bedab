"""Nothing happens. What is detected all the same is noise.

    client           |  network  |  gateway
    as before        |<--------->|  as before

Meaning: the baseline. The fault is planned, injected and measured as any other, and does nothing at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.catalogue.fault import ClientFault, RealClient
from harness.faults import PlannedFault

if TYPE_CHECKING:
    from harness.simulated.clients import Client
    from harness.simulated.connection import Connection

__all__ = ["Noop"]


class Noop(ClientFault):
    """Only its log line."""

    kind = "noop"
    summary = "nothing happens: the baseline"
    on_the_wire = "nothing out of the ordinary"
    mechanism = "none"
    cannot_show = "nothing: there is nothing to show"
    theory = "never suspected"
    example = "{kind: noop, share: 10%, at: {uniform: {low: 40s, high: 90s}}}"

    def real(self, client: RealClient, fault: PlannedFault) -> None:
        """Log it."""
        client.took_effect(fault, client.g.at_s(fault.at_s), self.mechanism)

    def simulated(self, client: Client, fault: PlannedFault, connection: Connection) -> None:
        """Log it."""
        client.took_effect(fault)
