"""Real silence of one client, for the faults that need it: deaf, mute, and its socket kept open."""

from __future__ import annotations

from harness.catalogue.fault import RealClient
from harness.real.network.silence import attach, detach

__all__ = ["SOCKET_FILTER", "end_silence", "fall_silent"]

SOCKET_FILTER = "socket filter"


def fall_silent(client: RealClient) -> None:
    """Nothing arrives, nothing is acknowledged, nothing is sent; the socket stays open.

    Raises:
        OSError: the kernel refuses the filter.
    """
    attach(client.wire.sock)
    client.deaf = True
    client.g.graveyard.append(client.wire)


def end_silence(client: RealClient) -> bool:
    """Let packets through again; False: the connection is gone meanwhile."""
    if client.wire is None:
        return False
    detach(client.wire.sock)
    client.deaf = False
    return True
