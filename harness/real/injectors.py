"""A planned fault to a client of the generator: when it is due, its catalogue file does it.

Every fault logs the moment at which it took effect, not the moment it was planned for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.catalogue import ClientGone, PageReloaded, client_fault
from harness.faults import PlannedFault

if TYPE_CHECKING:
    from harness.real.client import Client

__all__ = ["ClientGone", "PageReloaded", "inject"]


def inject(client: Client, fault: PlannedFault) -> None:
    """Do a fault to a connected client; a client that is not connected is left alone.

    Raises:
        ClientGone, PageReloaded: what became of the client, see `harness/catalogue/fault.py`.
    """
    if client.wire is not None:
        client_fault(fault.kind, fault.params).real(client, fault)
