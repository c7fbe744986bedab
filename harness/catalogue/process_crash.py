"""A client process dies. That is not silent: its kernel lives on and closes the socket.

    client           |  network  |  gateway
    process gone     |           |
    its kernel: FIN  |---------->|  known after one way, no heartbeat needed
      or RST         |---------->|  where data lay unread in the socket

Meaning: a crash, `kill -9`, the out-of-memory killer. RST instead of FIN where something was unread.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from harness.catalogue.fault import ClientFault, ClientGone, RealClient
from harness.faults import PlannedFault
from reference_server.events import Cause

if TYPE_CHECKING:
    from harness.simulated.clients import Client
    from harness.simulated.connection import Connection

__all__ = ["ProcessCrash"]


class ProcessCrash(ClientFault):
    """FIN or RST without a close frame."""

    kind = "process_crash"
    summary = "the client process dies; its kernel closes the socket"
    on_the_wire = "FIN or RST, no close frame"
    mechanism = "socket close (FIN or RST)"
    cannot_show = (
        "the process itself lives on; its kernel sends what it would send at the process's end"
    )
    theory = "one way"
    example = "{kind: process_crash, by: rst, share: 10%, at: {uniform: {low: 40s, high: 90s}}}"

    def real(self, client: RealClient, fault: PlannedFault) -> None:
        """Have the kernel close the socket, and be gone."""
        client.took_effect(fault, client.g.at_s(fault.at_s), self.mechanism_for(fault.params))
        if fault.params["by"] == "rst":
            client.wire.reset()
        else:
            client.wire.sock.close()
        raise ClientGone

    def simulated(self, client: Client, fault: PlannedFault, connection: Connection) -> None:
        """Die; the end arrives one way later."""
        client.took_effect(fault)
        client.die()
        cause = Cause.TCP_RESET if fault.params["by"] == "rst" else Cause.TCP_FIN
        client.around.network.end_by_client(connection, cause)

    def mechanism_for(self, params: Mapping[str, Any]) -> str:
        """FIN or RST."""
        return f"socket close ({str(params['by']).upper()})"
