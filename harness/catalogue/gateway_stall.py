"""A gateway node's event loop is busy with something else for a time.

    client           |  network  |  gateway
    answers, beats   |---------->|  wait in the socket buffers: nobody reads
                     |           |  ✗ busy ✗
                     |           |  back: timers first, sockets after - who judges before it has read
                     |           |  throws healthy clients out

Meaning: a long garbage collection, a blocking call, a starved container. All of the node's clients at once.
"""

from __future__ import annotations

from harness.catalogue.fault import ServerFault

__all__ = ["GatewayStall"]


class GatewayStall(ServerFault):
    """Reads and sends nothing for a time; its kernel goes on."""

    kind = "gateway_stall"
    summary = "a node's event loop is busy for a time"
    on_the_wire = "ACKs; no ping, no answer to anything"
    is_real = True
    mechanism = "SIGSTOP, then SIGCONT"
    cannot_show = (
        "a loop that is busy and still runs other threads: here the whole process stands still"
    )
    theory = "closed form of the share thrown out: harness/theory/literature/loop_stall.py"
    example = "{kind: gateway_stall, at: 60s, length: 5s, node: 1}"
