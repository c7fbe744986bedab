"""The way between clients and gateway: round trips, outages, a middlebox, TCP's retransmissions. Data only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from reference_server.durations import Duration, PositiveDuration
from reference_server.liveness.heartbeat_policy import LivenessPolicy
from scenarios.clock import RunClock
from scenarios.distributions import Distribution, Law
from scenarios.parts import Part

__all__ = ["ORPHAN_TRIES", "Nat", "Network", "Outages", "after_probe", "kept_by_pings"]

ORPHAN_TRIES = 9
"""How often the kernel retransmits for a socket that its process has closed: the tail-loss probe, and 8 more
(Linux, `tcp_orphan_retries` 0). Then it forgets it without a word."""


class Outages(Part):
    """Short losses of a healthy client's network: a Poisson process; the network heals by itself."""

    every: Annotated[PositiveDuration, Field(description="mean time between outages of one client")]
    length: Annotated[Law, Field(description="law of an outage's length")]


class Nat(Part):
    """A middlebox that ends or forgets a connection: a NAT, a firewall, a load balancer, a proxy."""

    idle_timeout: Annotated[
        PositiveDuration, Field(description="N: nothing that counts for this long, and it forgets or closes")
    ]
    expiry: Annotated[
        Literal["drop", "reset", "close"],
        Field(
            description="drop: later packets meet silence; reset: the next packet meets an RST; close: it closes "
            "both sides at once"
        ),
    ] = "drop"
    counts: Annotated[
        Literal["any", "data", "to_gateway", "to_client"],
        Field(
            description="what restarts its idle timer: any packet, data frames alone (no protocol ping or pong), or "
            "packets of one direction"
        ),
    ] = "any"
    at: Annotated[
        Literal["client", "gateway"],
        Field(description="the end of the path where it stands: half a round trip lies to one side of it"),
    ] = "client"


def kept_by_pings(nat: Nat, policy: LivenessPolicy) -> bool:
    """Whether a box next to the gateway sees a ping, answered or not, before each end of its idle timer.

    Then it never forgets a connection that the gateway has, whatever befalls the client.
    """
    if policy.heartbeat_interval is None or nat.at == "client" or nat.counts == "to_gateway":
        return False
    return max(policy.heartbeat_interval, policy.retry_s) < nat.idle_timeout


class Network(Part):
    """The way between a client and the gateway."""

    round_trip: Annotated[
        Law, Field(description="law of the time from a ping to its answer; real seconds, never sped up")
    ] = Distribution(constant=0.001)
    outages: Outages | None = None
    nat: Annotated[Nat | None, Field(description="a middlebox before every client, for the whole run")] = None
    max_age: Annotated[
        PositiveDuration | None,
        Field(description="a box on the way closes a connection of this age on both sides; null: none does"),
    ] = None
    tls: Annotated[
        bool,
        Field(
            description="clients speak TLS with the gateway: real runs do so, with a certificate of their own; theory "
            "reckons its bytes and handshakes; nothing else changes, and the simulation has no cost of it"
        ),
    ] = False
    rto_ladder: Annotated[
        tuple[PositiveDuration, ...],
        Field(min_length=1, description="TCP retransmissions after the first send, not scaled"),
    ] = (
        # Measured on loopback with a first RTO of 0.208 s: the tail-loss probe, which is none of the 15
        # retransmissions, and the first of those.
        *(0.208, 0.416, 0.848, 1.68, 3.34, 6.70, 13.36),
        *(26.7, 53.4, 106.8, 213.6),  # doubling
        *(333.6, 453.6, 573.6, 693.6, 813.6),  # the cap: 120 s each
    )

    give_up_lag: Annotated[
        Duration,
        Field(
            description="the kernel ends an unacknowledged connection up to this late, uniformly: its timers' "
            "grain, not scaled; simulated only"
        ),
    ] = 0.0

    def seen_at(self, clock: RunClock) -> Network:
        """The network as the clock of a run sees it, in scenario time.

        Round trips and TCP's timers do not shrink with the rest, so relative to it they grow.
        """
        return self.model_copy(
            update={
                "round_trip": clock.seen(self.round_trip),
                "rto_ladder": tuple(clock.scenario_s(step) for step in self.rto_ladder),
            }
        )


def after_probe(ladder: Sequence[float]) -> list[float]:
    """The ladder of a message that gets lost right after one that the tail-loss probe has repaired.

    Such a one is not probed: its first retransmission is RTO after it, the next twice that later (Linux 6.18,
    measured on lossy loopback connections: 0.2, 0.62, 1.45 s instead of 0.2, 0.42, 0.83 s).
    """
    return [step - ladder[0] for step in ladder[1:]]
