"""Each gateway node on a host of its own, which can vanish or be cut off from Redis: a namespace with two cables.

    clients, Redis, harness                        node n
    ┌──────────────────────┐  ┌────────┐ front n ┌──────────────────────┐
    │ 10.80.0.254          ├──┤ switch ├─────────┤ 10.80.0.n            │  clients reach the gateway
    │ 10.81.0.254          ├──┤ switch ├─────────┤ 10.81.0.n            │  the gateway reaches Redis
    └──────────────────────┘  └────────┘ back n  └──────────────────────┘

The switches are bridges: with a cable pulled behind one, who sends is not told. A host that vanishes has both cables
pulled at its own end before its processes are killed: what their kernel then says (FIN, RST) goes nowhere, and nobody
answers for it. A partition pulls one cable at the switch, and puts it back. What is in flight meanwhile is TCP's to
send again, as on any network. A host that comes back is a new namespace with the old addresses.

All namespaces are unnamed (`namespaces.py`), without a way to anything outside. Needs root.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from harness.real.network.namespaces import Namespace, link

__all__ = ["REDIS_ADDRESS", "Hosts", "hosts_network"]

_HUB_FRONT = "10.80.0.254"
REDIS_ADDRESS = _HUB_BACK = "10.81.0.254"
"""Where the nodes reach Redis."""
_MACS = {"front": "02:80:00:00:00:", "back": "02:81:00:00:00:"}


class Hosts:
    """The hosts of the nodes, counted from 1, around a hub with everybody else.

    Args:
        hub: where clients and Redis are.
        nodes: how many.

    Raises:
        CannotRun: not Linux or not root, or iproute2 is missing.
    """

    def __init__(self, hub: Namespace, nodes: int) -> None:
        self._hub = hub
        hub.ip(
            # With an address of its own: it would take one of its ports', another one whenever a host comes back.
            *(f"link add {side} address {mac}fe type bridge" for side, mac in _MACS.items()),
            *(f"addr add {_HUB_FRONT}/24 dev front", f"addr add {_HUB_BACK}/24 dev back"),
            *("link set front up", "link set back up"),
        )
        self._hosts = {number: self._make(number) for number in range(1, nodes + 1)}

    @staticmethod
    def address(number: int) -> str:
        """Where clients reach a node."""
        return f"10.80.0.{number}"

    @contextmanager
    def on(self, number: int) -> Iterator[None]:
        """Have the calling thread on a node's host; the processes that it starts stay there."""
        with self._hosts[number].entered():
            yield

    def vanish(self, number: int) -> None:
        """Take a host off the network without a word; its processes are the caller's to kill, afterwards."""
        self._hosts[number].ip("link set front down", "link set back down")

    def come_back(self, number: int) -> None:
        """Make a host anew that has vanished."""
        # The kernel keeps a namespace for as long as a dead process's FIN is on its way: its cables go now.
        self._hub.ip(f"link del front{number}", f"link del back{number}")
        self._hosts.pop(number).close()
        self._hosts[number] = self._make(number)

    def partition(self, number: int) -> None:
        """Cut a node off from Redis; its clients still reach it."""
        # At the switch's end: with its own end down the node would be told that there is no way.
        self._hub.ip(f"link set back{number} down")

    def heal(self, number: int) -> None:
        """End a partition."""
        self._hub.ip(f"link set back{number} up")

    def close(self) -> None:
        """Let go of all hosts."""
        for host in self._hosts.values():
            host.close()

    def _make(self, number: int) -> Namespace:
        host = Namespace(f"node-{number}")
        try:
            link(self._hub, f"front{number}", host, "front")
            link(self._hub, f"back{number}", host, "back")
            self._hub.ip(f"link set front{number} master front", f"link set back{number} master back")
            host.ip(
                # A machine that comes back has its old cards, which the others remember.
                *(f"link set {side} address {mac}{number:02x}" for side, mac in _MACS.items()),
                *(f"addr add {self.address(number)}/24 dev front", f"addr add 10.81.0.{number}/24 dev back"),
            )
        except BaseException:
            host.close()
            raise
        return host


@contextmanager
def hosts_network(nodes: int) -> Iterator[Hosts]:
    """Have the hosts for as long as the context lasts, with the calling thread in the hub.

    Raises:
        CannotRun: see `Hosts`.
    """
    with ExitStack() as stack:
        hub = stack.enter_context(Namespace("hub"))
        hosts = Hosts(hub, nodes)
        stack.callback(hosts.close)
        stack.enter_context(hub.entered())
        yield hosts
