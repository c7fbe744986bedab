"""Where the parts of a run are: all on loopback, or clients and gateway apart with a real NAT between.

The engine starts everything in the server's place; the clients' generator is started `at_clients`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.faults import Plan
from harness.real.cannot import CannotRun
from harness.real.nat import GATEWAY, check_nat, nat_network

__all__ = ["NETWORK_RECORD", "Network", "NetworkKind", "check_network", "network_of"]

NetworkKind = Literal["loopback", "netns-nat"]

NETWORK_RECORD = "network.json"  # in the folder of logs


@dataclass(frozen=True, slots=True)
class Network:
    """``bind``: what the gateway listens on. ``gateway``: the address that clients connect to."""

    bind: str
    gateway: str
    at_clients: Callable[[], AbstractContextManager[None]]


def check_network(kind: NetworkKind, plan: Plan, speedup: float, redis_url: str | None) -> None:
    """Return if the network can be had, and does what the plan asks for.

    Raises:
        CannotRun: it cannot.
    """
    if kind == "loopback":
        real = {fault.fault for fault in plan.faults if fault.params.get("by") == "netns"}
        if real:
            raise CannotRun(f"{', '.join(sorted(real))}: by netns; run with --network netns-nat")
        return
    if redis_url is not None and not redis_url.startswith("unix:"):
        raise CannotRun(
            "--network netns-nat: its namespaces reach nothing outside; leave --redis out to have a "
            "private server, or give a unix: URL"
        )
    check_nat(plan, speedup)


@contextmanager
def network_of(
    kind: NetworkKind, plan: Plan, speedup: float, logs: Path, address: str = ""
) -> Iterator[Network]:
    """Have the network of a run; the calling thread, and what it starts, is in the server's place.

    With an ``address`` of this host the gateway is reached there, and not on loopback alone.

    Raises:
        CannotRun: the machine cannot.
    """
    if kind == "loopback":
        yield Network("0.0.0.0" if address else "127.0.0.1", address or "127.0.0.1", nullcontext)
        return
    with nat_network(plan, speedup, logs / NETWORK_RECORD) as clients:
        yield Network("0.0.0.0", GATEWAY, clients.entered)
