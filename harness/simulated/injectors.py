"""A planned fault to a client of the model: when it is due, its catalogue file does it.

Every fault logs the moment at which it took effect, not the moment it was planned for.
"""

from __future__ import annotations

from harness.catalogue import client_fault
from harness.faults import PlannedFault
from harness.simulated.clients import Client

__all__ = ["inject"]


def inject(client: Client, fault: PlannedFault) -> None:
    """Do a planned fault to a connected client."""
    assert client.connection is not None
    client_fault(fault.kind, fault.params).simulated(client, fault, client.connection)
