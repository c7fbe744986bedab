"""The gateway's nodes, their leases and loops, and the store. Data only."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from reference_server.durations import PositiveDuration
from scenarios.clock import RunClock
from scenarios.distributions import Distribution, Law
from scenarios.parts import Part

__all__ = ["Gateway", "Lease", "Stalls", "Store"]


class Stalls(Part):
    """A node's event loop is kept busy now and then: a Poisson process of its own for each node."""

    every: Annotated[PositiveDuration, Field(description="mean time between two stalls of a node")]
    length: Annotated[Law, Field(description="law of a stall's length")]


class Lease(Part):
    """How the nodes know that one of them is gone."""

    ttl: Annotated[PositiveDuration, Field(description="a lease not renewed for this long ends")] = 15.0
    renew: Annotated[PositiveDuration, Field(description="from one renewal to the next")] = 5.0
    check: Annotated[
        PositiveDuration, Field(description="how often a node looks for leases that have ended")
    ] = 5.0

    @model_validator(mode="after")
    def _renewed_in_time(self) -> Self:
        if self.ttl < 2 * self.renew:
            raise ValueError(
                f"ttl {self.ttl:g}s is below twice renew {self.renew:g}s: one late renewal would end the lease"
            )
        return self


class Gateway(Part):
    """The gateway's nodes. A real gateway has its own speed: `flatline calibrate` measures it for the model.

    Service times and the lag are real machine time, never sped up; service times are simulated only.
    """

    nodes: Annotated[int, Field(ge=1, description="clients are spread over them at random")] = 1
    heartbeat_service: Annotated[
        Law, Field(description="loop time of one heartbeat: half to send it, half to read its answer")
    ] = Distribution(constant=0.0)
    handshake_service: Annotated[
        Law, Field(description="loop time of one WebSocket handshake and its authentication")
    ] = Distribution(constant=0.0)
    refuse_above_lag: Annotated[
        PositiveDuration | None,
        Field(description="nobody new for as long as the loop has been later than this; null: never"),
    ] = 1.0
    stalls: Stalls | None = None
    lease: Lease = Lease()

    @property
    def takes_time(self) -> bool:
        """Whether a node's loop is ever busy."""
        instant = Distribution(constant=0.0)
        return not (self.heartbeat_service == self.handshake_service == instant and self.stalls is None)

    def seen_at(self, clock: RunClock) -> Gateway:
        """The nodes as the clock of a run sees them, in scenario time: relatively slower."""
        if clock.is_real_time:
            return self
        return self.model_copy(
            update={
                "heartbeat_service": clock.seen(self.heartbeat_service),
                "handshake_service": clock.seen(self.handshake_service),
                "refuse_above_lag": self.refuse_above_lag and clock.scenario_s(self.refuse_above_lag),
            }
        )


class Store(Part):
    """Redis as the model has it. Simulated only."""

    expiry_lag: Annotated[
        Law, Field(description="from the end of a TTL to the key's deletion; readers see neither")
    ] = Distribution(constant=0.0)
    announces_expiry: Annotated[
        bool, Field(description="the deletion of an expired status tells the user's watchers")
    ] = False
