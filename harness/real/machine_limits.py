"""Will this machine hold that many clients? Descriptors, ports and memory, looked at before anything starts.

From a run's numbers and a machine's limits to complaints, each with what would do. The judgement is pure;
`this_machine` is what looks.
"""

from __future__ import annotations

import math
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

from harness.real.errors import CannotRun

__all__ = ["Complaint", "Load", "Machine", "check_limits", "complaints", "this_machine", "workers_for"]

_SPARE = 512  # descriptors of a process for logins, logs, Redis and the loop
_DEVIATIONS = 4  # a node gets a random share of the clients
_CLIENTS_A_WORKER = 30_000  # one loop answers a thousand heartbeats a second in a tenth of its time
_PORTS = 28_232  # Linux's ephemeral range
_CLIENTS_AN_ADDRESS = 16_384  # as in generator/gateway_client.py
# Measured with 100,000 clients (`bench/scale.py`), resident: generator and gateway a connection, Redis a
# session; and two sockets in the kernel, which no process's memory shows.
_CLIENT_BYTES, _SESSION_BYTES, _STORE_BYTES, _SOCKETS_BYTES = 3 << 10, 14 << 10, 2 << 10, 6 << 10
_PROCESS_BYTES = 160 << 20
_UNCOMFORTABLE = 0.8  # of the memory that is there


@dataclass(frozen=True, slots=True)
class Load:
    """What is to be held."""

    clients: int
    nodes: int
    workers: int


@dataclass(frozen=True, slots=True)
class Machine:
    """What there is."""

    descriptors: int  # of a process, at most
    ports: int  # between two addresses
    memory_bytes: int  # that can be had


@dataclass(frozen=True, slots=True)
class Complaint:
    """What will not do, or hardly; and what would."""

    text: str
    certain: bool


def this_machine() -> Machine:
    """Look at this machine and this process's limits."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = 1 << 30
    ports = _PORTS
    if sys.platform == "linux":
        low, high = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
        ports = int(high) - int(low) + 1
    return Machine(hard, ports, psutil.virtual_memory().available)


def workers_for(clients: int, machine: Machine) -> int:
    """How many generator processes so many clients need."""
    return max(1, math.ceil(clients / min(_CLIENTS_A_WORKER, max(1, machine.descriptors - _SPARE))))


def complaints(load: Load, machine: Machine) -> list[Complaint]:
    """Judge a load on a machine."""
    found = []

    def cannot(text: str) -> None:
        found.append(Complaint(text, certain=True))

    room = max(1, machine.descriptors - _SPARE)
    may_have = f"descriptors, a process may have {machine.descriptors}"
    or_else = "would do, or a higher hard limit (ulimit -Hn)"
    a_worker = math.ceil(load.clients / load.workers)
    if a_worker > room:
        workers = math.ceil(load.clients / room)
        needs = f"{a_worker} clients a generator process need {a_worker + _SPARE} {may_have}"
        cannot(f"{needs}: --workers {workers} {or_else}")
    a_node = _most_on_a_node(load.clients, load.nodes)
    if a_node > room:
        nodes = load.nodes
        while _most_on_a_node(load.clients, nodes) > room:
            nodes += 1
        needs = f"{a_node} clients on a gateway node need {a_node + _SPARE} {may_have}"
        cannot(f"{needs}: gateway.nodes: {nodes} (--nodes {nodes}) {or_else}")
    an_address = min(_CLIENTS_AN_ADDRESS, math.ceil(load.clients / load.nodes))
    if an_address > machine.ports:
        cannot(
            f"{an_address} clients of one address need as many ephemeral ports, there are {machine.ports}: "
            "more gateway.nodes, or a wider net.ipv4.ip_local_port_range"
        )
    a_client = _CLIENT_BYTES + _SESSION_BYTES + _STORE_BYTES + _SOCKETS_BYTES
    processes = (load.nodes + load.workers + 4) * _PROCESS_BYTES
    needed, comfortable = load.clients * a_client + processes, _UNCOMFORTABLE * machine.memory_bytes
    if needed > comfortable:
        text = (
            f"{load.clients} clients need about {needed / 2**30:.1f} GiB of memory, "
            f"{machine.memory_bytes / 2**30:.1f} GiB can be had: "
            f"{max(int((comfortable - processes) / a_client), 0)} clients would fit"
        )
        found.append(Complaint(text, certain=needed > machine.memory_bytes))
    return found


def check_limits(load: Load) -> list[str]:
    """Return warnings about this machine.

    Raises:
        CannotRun: it certainly will not do.
    """
    found = complaints(load, this_machine())
    if any(one.certain for one in found):
        raise CannotRun("; ".join(one.text for one in found if one.certain))
    return [one.text for one in found]


def _most_on_a_node(clients: int, nodes: int) -> int:
    """What the fullest node gets when each client goes to a random one, four standard deviations up."""
    share = 1 / nodes
    return min(clients, math.ceil(clients * share + _DEVIATIONS * math.sqrt(clients * share * (1 - share))))
