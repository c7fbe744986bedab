"""A real NAT between clients and gateway: network namespaces, nftables masquerade, conntrack timeouts.

      clients                    one NAT per idle timeout                  server
    ┌────────────────┐          ┌──────────────────────────┐         ┌──────────────────────┐
    │ Locust         │          │ nat0: the kernel's own,  │         │ gateway on 10.79.0.1 │
    │      10.77.0.1 ├──────────┤ 5 days         10.78.0.1 ├─────────┤ Redis, store watch,  │
    │                │          ├──────────────────────────┤         │ the harness itself   │
    │      10.77.1.1 ├──────────┤ nat1: N = 4 s, drop      ├─────────┤                      │
    │                │          │                10.78.1.1 │         │                      │
    │      10.77.2.1 ├──────────┤ nat2: N = 4 s, reset     ├─────────┤                      │
    └────────────────┘          │                10.78.2.1 │         └──────────────────────┘
                                └──────────────────────────┘
Conntrack's timeouts belong to a namespace, so each pair of idle timeout and expiry has a NAT of its
own. A client chooses its way by its source address; clients without such a fault go through nat0, so
all are the same number of hops away.

From a plan's ``nat_timeout`` faults to a network; what a client behind a NAT does is `generator/behind_nat.py`.
All namespaces are unnamed (`namespaces.py`): nothing is left of them when the processes have ended. Without a NAT,
everything is on loopback. The engine starts everything in the server's place, the generator `at_clients`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from harness.real.errors import CannotRun
from harness.real.network import NetworkKind
from harness.real.network.conntrack import Conntrack
from harness.real.network.hosts import Hosts, hosts_network
from harness.real.network.namespaces import Namespace, link, require
from scenarios.clock import RunClock
from scenarios.faults import PlannedFault
from scenarios.faults.incidents import DrawnNodeCrash
from scenarios.faults.nat_timeout import DrawnNatTimeout
from scenarios.plan import Plan

__all__ = [
    "GATEWAY",
    "NatBox",
    "Network",
    "check_nat",
    "check_network",
    "is_behind_nat",
    "load_boxes",
    "nat_network",
    "network_of",
]

GATEWAY = "10.79.0.1"  # the server's address, reached through every NAT
_LEAST_S = 2  # below it a keepalive of one second, the shortest there is, may come too late
_PATIENCE_S = 300  # conntrack's own timeouts of unacknowledged data and retransmissions


@dataclass(frozen=True, slots=True)
class NatBox:
    """A NAT and who is behind it: what the generator is told."""

    faults: tuple[str, ...]  # labels
    source: str  # a client that binds this address goes through it
    namespace: str  # path of its namespace
    idle_timeout_s: int  # real seconds
    expiry: str  # drop, reset


def is_behind_nat(fault: PlannedFault) -> bool:
    """Whether a real NAT does this fault where there is one."""
    return isinstance(fault.params, DrawnNatTimeout) and fault.params.by != "socket_filter"


def check_nat(plan: Plan, clock: RunClock) -> None:
    """Return if this machine can make the network of a plan: it is made, and unmade.

    Raises:
        CannotRun: not Linux or not root, a program is missing, a timeout that is no whole number.
    """
    with ExitStack() as stack:
        _, _, boxes = _build(_kinds(plan, clock), stack)
        try:
            for box in boxes:
                Conntrack(box.namespace).close()
        except OSError as error:
            raise CannotRun(f"conntrack's events: {error}; modprobe nf_conntrack_netlink") from error


@contextmanager
def nat_network(plan: Plan, clock: RunClock, record: Path) -> Iterator[Namespace]:
    """Have the network for as long as the context lasts, with the calling thread in the server's namespace.

    Args:
        plan: which idle timeouts are wanted.
        clock: of the run.
        record: written for the generator, see :func:`load_boxes`.

    Yields:
        the clients' namespace.

    Raises:
        CannotRun: see :func:`check_nat`.
    """
    with ExitStack() as stack:
        clients, server, boxes = _build(_kinds(plan, clock), stack)
        record.write_bytes(orjson.dumps([asdict(box) for box in boxes], option=orjson.OPT_INDENT_2))
        stack.enter_context(server.entered())
        yield clients


def load_boxes(record: Path) -> list[NatBox]:
    """Read what :func:`nat_network` wrote; no file, no NATs."""
    if not record.exists():
        return []
    return [NatBox(**{**box, "faults": tuple(box["faults"])}) for box in orjson.loads(record.read_bytes())]


_Kind = tuple[int, str]  # idle timeout in whole real seconds, expiry


def _kinds(plan: Plan, clock: RunClock) -> dict[_Kind, tuple[str, ...]]:
    """The NATs that a plan wants, and the labels of the faults behind each.

    Raises:
        CannotRun: a timeout that conntrack cannot have.
    """
    wanted = {
        fault.fault: fault.params
        for fault in plan.faults
        if isinstance(fault.params, DrawnNatTimeout) and is_behind_nat(fault)
    }
    kinds: dict[_Kind, tuple[str, ...]] = {}
    for label, params in wanted.items():
        idle_s = clock.real_s(params.idle_timeout_s)
        if abs(idle_s - round(idle_s)) > 1e-9 or idle_s < _LEAST_S:
            fits = _fitting_pace([p.idle_timeout_s for p in wanted.values()])
            raise CannotRun(
                f"{label}: idle_timeout {params.idle_timeout_s:g} s at speedup {clock.speedup:g} is "
                f"{idle_s:g} s; conntrack counts whole seconds, allowed: {_LEAST_S} or more; "
                f"{f'run with --speedup {fits:g}' if fits >= 1 else 'change idle_timeout'}"
            )
        kind = (round(idle_s), params.expiry)
        kinds[kind] = (*kinds.get(kind, ()), label)
    return kinds


def _fitting_pace(idle_s: list[float]) -> float:
    """The largest pace that leaves every timeout whole seconds, and enough of them."""
    common_s = math.gcd(*(round(s * 1000) for s in idle_s)) / 1000
    return common_s / math.ceil(_LEAST_S * common_s / min(idle_s))


def _build(
    kinds: dict[_Kind, tuple[str, ...]], stack: ExitStack
) -> tuple[Namespace, Namespace, list[NatBox]]:
    require("nft", "nftables")
    clients = stack.enter_context(Namespace("clients"))
    server = stack.enter_context(Namespace("server"))
    clients.sysctl("ipv4/ip_local_port_range", "1024 65535")
    server.ip(f"addr add {GATEWAY}/32 dev lo")
    boxes = []
    for n, (kind, faults) in enumerate([(None, ()), *kinds.items()]):
        nat = stack.enter_context(Namespace(f"nat{n}"))
        _cable(n, clients, nat, server)
        idle_s, expiry = kind or (None, "drop")
        _translate(nat, idle_s, expiry)
        if idle_s is not None:
            boxes.append(NatBox(faults, f"10.77.{n}.1", nat.path, idle_s, expiry))
    return clients, server, boxes


def _cable(n: int, clients: Namespace, nat: Namespace, server: Namespace) -> None:
    """Addresses and routes of the way through one NAT."""
    link(clients, f"nat{n}", nat, "inner")
    link(nat, "outer", server, f"nat{n}")
    table = "main" if n == 0 else str(100 + n)
    clients.ip(
        f"addr add 10.77.{n}.1/24 dev nat{n}",
        f"route add default via 10.77.{n}.254 table {table}",
        *([f"rule add from 10.77.{n}.1 lookup {table}"] if n else []),
    )
    nat.ip(
        f"addr add 10.77.{n}.254/24 dev inner",
        f"addr add 10.78.{n}.1/24 dev outer",
        f"route add default via 10.78.{n}.254",
    )
    server.ip(
        f"addr add 10.78.{n}.254/24 dev nat{n}",
        # A delayed ACK, 40 ms after the answer, would be the mapping's last packet and does not shrink
        # in a faster run: acknowledge at once.
        f"route change 10.78.{n}.0/24 dev nat{n} src 10.78.{n}.254 quickack 1",
    )


def _translate(nat: Namespace, idle_s: int | None, expiry: str) -> None:
    """Make a namespace a NAT: it forgets a connection after `idle_s` without a packet, in either direction."""
    nat.sysctl("ipv4/ip_forward", 1)
    # 1 would make a mapping from any packet of a connection whose mapping has expired.
    nat.sysctl("netfilter/nf_conntrack_tcp_loose", 0)
    nat.sysctl("netfilter/nf_conntrack_events", 1)  # `conntrack.py` hears of each mapping's end,
    nat.sysctl("netfilter/nf_conntrack_timestamp", 1)  # and when exactly it was
    if idle_s is not None:
        nat.sysctl("netfilter/nf_conntrack_tcp_timeout_established", idle_s)
        for state in ("unacknowledged", "max_retrans"):
            nat.sysctl(f"netfilter/nf_conntrack_tcp_timeout_{state}", min(idle_s, _PATIENCE_S))
    nat.run("nft", "-f", "-", text=_ruleset(expiry))


def _ruleset(expiry: str) -> str:
    # A packet without a mapping: from the server it is addressed to the NAT itself (input), from a
    # client it is to be forwarded.
    unknown = "meta l4proto tcp reject with tcp reset" if expiry == "reset" else "drop"
    return f"""table ip flatline {{
  chain forward {{
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    iifname "inner" ct state new accept
    {unknown}
  }}
  chain input {{
    type filter hook input priority filter; policy drop;
    {unknown}
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat;
    oifname "outer" masquerade
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Network:
    """``bind``: what the gateway listens on. ``gateway``: the address that clients connect to, without ``hosts``."""

    bind: str
    gateway: str
    at_clients: Callable[[], AbstractContextManager[None]]
    hosts: Hosts | None = None  # the nodes have hosts of their own: one of them is to vanish

    def addresses(self, nodes: int) -> list[str]:
        """Where so many nodes are reached."""
        return [self.gateway] if self.hosts is None else [self.hosts.address(n + 1) for n in range(nodes)]


def check_network(kind: NetworkKind, plan: Plan, clock: RunClock, redis_url: str | None) -> None:
    """Return if the network can be had, and does what the plan asks for.

    Raises:
        CannotRun: it cannot.
    """
    if kind != "netns-nat":
        real = {
            fault.fault
            for fault in plan.faults
            if isinstance(fault.params, DrawnNatTimeout) and fault.params.by == "netns"
        }
        if real:
            raise CannotRun(f"{', '.join(sorted(real))}: by netns; run with --network netns-nat")
        return
    if redis_url is not None and not redis_url.startswith("unix:"):
        raise CannotRun(
            "--network netns-nat: its namespaces reach nothing outside; leave --redis out to have a "
            "private server, or give a unix: URL"
        )
    check_nat(plan, clock)


@contextmanager
def network_of(
    kind: NetworkKind, plan: Plan, clock: RunClock, record: Path, address: str = "", nodes: int = 1
) -> Iterator[Network]:
    """Have the network of a run; the calling thread, and what it starts, is in the server's place.

    Args:
        kind: a real NAT between clients and gateway, or loopback, perhaps with a proxy (`processes/proxy.py`).
        plan: which idle timeouts a NAT is to have.
        clock: of the run.
        record: written for the generators where there is a NAT, see :func:`load_boxes`.
        address: of this host, where the gateway is reached; empty: on loopback alone.
        nodes: how many gateway nodes; where the plan has a host vanish, each has a host of its own.

    Raises:
        CannotRun: the machine cannot.
    """
    if any(one.params == DrawnNodeCrash("host") for one in plan.incidents):
        with hosts_network(nodes) as hosts:
            yield Network("0.0.0.0", "127.0.0.1", nullcontext, hosts)
        return
    if kind != "netns-nat":
        yield Network("0.0.0.0" if address else "127.0.0.1", address or "127.0.0.1", nullcontext)
        return
    with nat_network(plan, clock, record) as clients:
        yield Network("0.0.0.0", GATEWAY, clients.entered)
