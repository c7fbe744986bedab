"""What may happen to gateway nodes, to the store, or to everybody at once: keys in a scenario, words, drawings.

The engines do these themselves: `harness/simulated/nodes.py`, `harness/real/incidents.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from reference_server.durations import Duration
from scenarios.distributions import Distribution, Law
from scenarios.faults.base import ScenarioItem, ServerFault

__all__ = [
    "DrawnGatewayStall",
    "DrawnNodeCrash",
    "DrawnNodeDrain",
    "DrawnReconnectStorm",
    "DrawnStoreFlush",
    "DrawnStoreRestart",
    "GatewayStall",
    "Incident",
    "NodeCrash",
    "NodeDrain",
    "NodeIncident",
    "PlannedIncident",
    "ReconnectStorm",
    "StoreFlush",
    "StoreRestart",
]


@dataclass(frozen=True, slots=True)
class PlannedIncident:
    """Something that happens to a gateway node or to the store. Scenario seconds from the run's origin."""

    incident_id: str
    kind: str
    node: int | None  # counted from 1; None: not a node's
    at_s: float
    lasts_s: float | None  # until its cause is gone (a stall's end, a node's return); None: never
    params: ServerFault


class Incident(ScenarioItem):
    """One item of a scenario's `incidents`. A subclass adds the keys of its kind."""

    drawn: ClassVar[type[ServerFault]]
    lasts_by: ClassVar[str] = (
        ""  # the key with the law of the time until its cause is gone; empty: never, or at once
    )

    at: Annotated[Law, Field(description="law of its time, counted from the end of the ramp")]

    @property
    def lasting(self) -> Distribution | None:
        """Law of the time until its cause is gone; None: never, or at once."""
        return getattr(self, self.lasts_by) if self.lasts_by else None


class NodeIncident(Incident):
    """One that happens to a node."""

    node: Annotated[int, Field(ge=1, description="which node, counted from 1")] = 1


class DrawnGatewayStall(ServerFault):
    """A gateway node's event loop is busy with something else for a time.

        client           |  network  |  gateway
        answers, beats   |---------->|  wait in the socket buffers: nobody reads
                         |           |  ✗ busy ✗
                         |           |  back: timers first, sockets after - who judges before it has read
                         |           |  throws healthy clients out

    Meaning: a long garbage collection, a blocking call, a starved container. All of the node's clients at once.
    """

    kind = "gateway_stall"
    summary = "a node's event loop is busy for a time"
    on_the_wire = "ACKs; no ping, no answer to anything"
    mechanism = "SIGSTOP, then SIGCONT"
    cannot_show = "a loop that is busy and still runs other threads: here the whole process stands still"
    theory = "closed form of the share thrown out: harness/theory/literature/loop_stall.py"
    example = "{kind: gateway_stall, at: 60s, length: 5s, node: 1}"
    stops_loop = True
    settled_by = "renewal_after_it"


class GatewayStall(NodeIncident):
    """A node's event loop is busy with something else for a time: it reads and sends nothing."""

    drawn = DrawnGatewayStall
    lasts_by = "length"

    kind: Literal["gateway_stall"]
    length: Law


@dataclass(frozen=True)
class DrawnNodeCrash(ServerFault):
    """A gateway node dies: its process, or its whole host.

        clients          |  network  |  gateway node        |  other nodes
        end of stream    |<----------|  ✗ by process: FIN, RST
        silence          |    ✗      |  ✗ by host: nothing
        come back        |------------------------------------>|  its lease runs out: they reap its sessions

    Meaning: a killed container, a lost machine. Its records stay until the lease, or a TTL, or a restart ends them.
    """

    by: Literal["process", "host"]

    kind = "node_crash"
    summary = "a gateway node dies: its process, or its host"
    on_the_wire = "process: FIN or RST to every client; host: nothing"
    mechanism = "SIGKILL of the node's process; by: host, with the cables of its network namespace pulled before (root)"
    cannot_show = "by: host without root: a killed process's kernel sends FIN"
    example = "{kind: node_crash, at: 60s, node: 2, by: process, restart_after: 20s}"
    cuts_connections = True
    settled_by = "lease"


class NodeCrash(NodeIncident):
    """A gateway node dies: its process (the kernel sends FIN or RST) or its whole host (silence)."""

    drawn = DrawnNodeCrash
    lasts_by = "restart_after"

    kind: Literal["node_crash"]
    by: Annotated[Literal["process", "host"], Field(description="a host's clients are told nothing")] = (
        "process"
    )
    restart_after: Annotated[
        Law | None, Field(description="law of the time until it is back, empty; null: never")
    ] = None


@dataclass(frozen=True)
class DrawnNodeDrain(ServerFault):
    """A graceful deploy: the node sends its clients away in order, ends, and the next one starts.

        clients          |  network  |  gateway node        |  other nodes
        close frame 1001 |<----------|  stops accepting, closes in order, flushes its records, ends
        come back        |------------------------------------>|  sessions resumed, if their records are kept

    Meaning: a rolling deploy, a scale-in. Nothing is lost that the node could still say.
    """

    spread: float = 0.0

    kind = "node_drain"
    summary = "a graceful deploy of one node"
    on_the_wire = "close frame 1001 to every client, FIN"
    mechanism = "SIGTERM, then the next process on the same ports"
    cannot_show = "a load balancer that is told beforehand"
    example = "{kind: node_drain, at: 60s, node: 1, restart_after: 10s}"
    cuts_connections = True
    settled_by = "resume_window"


class NodeDrain(NodeIncident):
    """A graceful deploy: the node closes its connections in order (1001) and ends; then the next one starts."""

    drawn = DrawnNodeDrain
    lasts_by = "restart_after"

    kind: Literal["node_drain"]
    restart_after: Annotated[
        Law | None, Field(description="law of the time until it is back; null: never")
    ] = None
    spread: Annotated[
        Duration, Field(description="its closes are spread evenly over this window; 0s: all at once")
    ] = 0.0


class DrawnStoreFlush(ServerFault):
    """Every record is gone at once, and nothing is announced.

        client           |  gateway      |  store
        beats go on      |  live: yes    |  FLUSHALL: online? nobody
        refresh          |-------------->|  session unknown, unless the gateway has put the record back

    Meaning: a flush by hand, a fail-over to an empty replica, an eviction. Who trusts the store alone forgets
    everybody; a gateway that refreshes must re-assert the record, for EXPIRE on a vanished key does nothing.
    """

    kind = "store_flush"
    side = "store"
    summary = "every record is gone at once"
    on_the_wire = "clients: nothing; gateway: nothing"
    mechanism = "FLUSHALL; on a server given by --redis, deletion of the run's own keys"
    cannot_show = "nothing: this is what a flush is"
    example = "{kind: store_flush, at: 60s}"
    settled_by = "renewal"


class StoreFlush(Incident):
    """Every record is gone at once, and nothing is announced."""

    drawn = DrawnStoreFlush

    kind: Literal["store_flush"]


@dataclass(frozen=True)
class DrawnStoreRestart(ServerFault):
    """The store does not answer for a time, and comes back with its records or without.

        client           |  gateway      |  store
        beats go on      |  commands     |  ✗ no answer
                         |  fail or wait |  back: with its records (persistence), or empty

    Meaning: a Redis restart or fail-over. Connections live on; log-ins, resumes and clean-ups wait or are refused.
    """

    keeps: bool  # whether its records survive

    kind = "store_restart"
    side = "store"
    summary = "the store does not answer for a time"
    on_the_wire = "clients: nothing; gateway: refused or reset connections to the store"
    mechanism = "SIGKILL of Redis, then a start on the same port (keeps: append-only file)"
    cannot_show = "a fail-over to a replica that lags"
    example = "{kind: store_restart, at: 60s, down: 5s, keeps: false}"
    settled_by = "renewal_after_it"


class StoreRestart(Incident):
    """The store does not answer for a time."""

    drawn = DrawnStoreRestart
    lasts_by = "down"

    kind: Literal["store_restart"]
    down: Annotated[Law, Field(description="law of the time without an answer")]
    keeps: Annotated[bool, Field(description="whether its records survive")] = True


class DrawnReconnectStorm(ServerFault):
    """Every connection ends at once, and every client comes back: a thundering herd.

        clients          |  load balancer  |  gateway nodes
        RST              |<----- ✗ ------->|  RST: all sessions wait for their resume window
        back-off, jitter |                 |
        all come back    |---------------->|  handshakes and resumes: the loops are busy with nothing else,
                         |                 |  and the heartbeats of those who are back wait

    Meaning: a load balancer or a proxy that restarts, a router that loses its state, a Wi-Fi that comes back. What
    decides is the clients' back-off with jitter, and whether the gateway says "later" before it drowns.
    """

    kind = "reconnect_storm"
    side = "network"
    summary = "every connection is reset at once, and all clients come back"
    on_the_wire = "RST in both directions"
    mechanism = "the kernel aborts every client's socket (ss --kill)"
    cannot_show = "a load balancer that refuses new connections for a while"
    example = "{kind: reconnect_storm, at: 60s}"


class ReconnectStorm(Incident):
    """Every client's connection is reset at once, as by a load balancer that restarts; all come back."""

    drawn = DrawnReconnectStorm

    kind: Literal["reconnect_storm"]
