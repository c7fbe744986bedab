"""A client process dies. That is not silent: its kernel lives on and closes the socket.

    client           |  network  |  gateway
    process gone     |           |
    its kernel: FIN  |---------->|  known after one way, no heartbeat needed
      or RST         |---------->|  where data lay unread in the socket

Meaning: a crash, `kill -9`, the out-of-memory killer. RST instead of FIN where something was unread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from reference_server.events import Cause
from scenarios.faults.base import ClientFault, ClientGone, Fault, ModelClient, PlannedFault, RealClient

__all__ = ["DrawnProcessCrash", "ProcessCrash"]


@dataclass(frozen=True)
class DrawnProcessCrash(ClientFault):
    """FIN or RST without a close frame."""

    by: Literal["fin", "rst"]

    kind = "process_crash"
    summary = "the client process dies; its kernel closes the socket"
    on_the_wire = "FIN or RST, no close frame"
    mechanism = "socket close (FIN or RST)"
    cannot_show = "the process itself lives on; its kernel sends what it would send at the process's end"
    theory = "one way"
    example = "{kind: process_crash, by: rst, share: 10%, at: {uniform: {low: 40s, high: 90s}}}"
    announced = True

    @property
    def drawn_mechanism(self) -> str:
        """FIN or RST."""
        return f"socket close ({self.by.upper()})"

    def real(self, client: RealClient, fault: PlannedFault) -> None:
        """Have the kernel close the socket, and be gone."""
        client.took_effect(fault)
        if self.by == "rst":
            client.wire.reset()
        else:
            client.wire.sock.close()
        raise ClientGone

    def simulated(self, client: ModelClient, fault: PlannedFault) -> None:
        """Die; the end arrives one way later."""
        client.took_effect(fault)
        client.die(Cause.TCP_RESET if self.by == "rst" else Cause.TCP_FIN)


class ProcessCrash(Fault):
    """The client process dies; its kernel closes the socket."""

    drawn = DrawnProcessCrash

    kind: Literal["process_crash"]
    by: Annotated[
        Literal["fin", "rst"], Field(description="what its kernel sends: RST where data was unread")
    ] = "fin"
