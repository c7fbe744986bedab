"""Models of how a product notices a dead peer: parameters in seconds, and the law that follows from them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from harness.theory import Law, idle_limit, miss_at_next_tick, ping_deadline
from reference_server.durations import Duration, PositiveDuration
from reference_server.liveness import LivenessPolicy

__all__ = ["Detector", "IdleLimit", "NextTick", "PingDeadline", "Record", "Unknown"]


class Record(BaseModel):
    """A frozen record of a data file; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PingDeadline(Record):
    """The server pings and waits; `sweep` and `close_wait` come on top. Seconds."""

    model: Literal["ping_deadline"]
    interval: PositiveDuration
    timeout: PositiveDuration
    max_failures: Annotated[int, Field(ge=1)] = 1
    retry_interval: PositiveDuration | None = None
    sweep: Annotated[Duration, Field(description="the deadline is looked at this often")] = 0.0
    close_wait: Annotated[
        Duration, Field(description="from the decision to the handler's notice")
    ] = 0.0

    @property
    def traffic_gap_s(self) -> float:
        """Longest time without a packet on a healthy, otherwise idle connection, seconds."""
        return self.interval

    @property
    def policy(self) -> LivenessPolicy:
        """The heartbeat as a policy of ours, everything else off or default."""
        return LivenessPolicy(
            heartbeat_interval=self.interval,
            heartbeat_timeout=self.timeout,
            max_failures=self.max_failures,
            retry_interval=self.retry_interval,
            session_timeout=None,
        )

    def law(self) -> Law:
        """T_D of a silent peer: U + (k−1)R + τ + Uniform(0, sweep) + close_wait."""
        return (
            ping_deadline(self.policy).plus(Law.uniform(0.0, self.sweep)).shifted(self.close_wait)
        )


class IdleLimit(Record):
    """One side beats, or answers pings, every `beat`; the server allows `limit` without. Seconds."""

    model: Literal["idle_limit"]
    beat: PositiveDuration
    limit: PositiveDuration
    sweep: Duration = 0.0

    @property
    def traffic_gap_s(self) -> float:
        """Longest time without a packet on a healthy, otherwise idle connection, seconds."""
        return self.beat

    def law(self) -> Law:
        """T_D of a silent peer: limit − U + Uniform(0, sweep)."""
        return idle_limit(self.beat, self.limit, self.sweep)


class NextTick(Record):
    """A ping every `interval`; a missing answer is noticed when the next is due. Seconds."""

    model: Literal["next_tick"]
    interval: PositiveDuration
    max_failures: Annotated[int, Field(ge=1)] = 1

    @property
    def traffic_gap_s(self) -> float:
        """Longest time without a packet on a healthy, otherwise idle connection, seconds."""
        return self.interval

    def law(self) -> Law:
        """T_D of a silent peer: U + kT."""
        return miss_at_next_tick(self.interval, self.max_failures)


class Unknown(Record):
    """Too little is published to say when a silent peer is noticed."""

    model: Literal["unknown"]
    interval: PositiveDuration
    missing: str

    @property
    def traffic_gap_s(self) -> float:
        """Longest time without a packet on a healthy, otherwise idle connection, seconds."""
        return self.interval

    def law(self) -> None:
        """Nothing follows from what is known."""
        return None


Detector = Annotated[PingDeadline | IdleLimit | NextTick | Unknown, Field(discriminator="model")]
