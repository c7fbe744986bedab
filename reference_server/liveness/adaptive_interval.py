"""A heartbeat that probes how long a NAT lets it be silent, as mobile messengers do. Pure: time is an argument.

From answers and lost connections at one interval after the other to the longest interval that keeps this
network's mappings alive:

    minimum ──3 answers──► + step ──3 answers──► + step … ──► maximum − margin: settled
                              └─3 connections lost─► − step − margin: settled ─3 lost─► minimum

What is learnt belongs to a client's network, not to a connection: one `ProbedInterval` outlives many detectors.
Source: Tencent Mars, smart_heartbeat (WeChat's), whose published description has 4.5 min to 9 min 50 s, steps
of 60 s, a margin of 20 s, and three of everything that is counted. There the client beats; here the gateway does.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from reference_server.durations import Duration, PositiveDuration
from reference_server.events import Cause
from reference_server.liveness.detector import DetectorSettings, Verdict
from reference_server.liveness.heartbeat_policy import LivenessPolicy, PingDetector

__all__ = ["ProbedInterval", "Probing", "ProbingDetector"]

# Ends that tell that the way was closed; so does a client that had to come back by itself.
_WAY_WAS_CLOSED = frozenset({Cause.HEARTBEAT, Cause.TCP_RESET, Cause.TCP_TIMEOUT, Cause.TAKE_OVER})


class Probing(DetectorSettings):
    """How the interval is probed. Of the policy's ``heartbeat_interval`` it only matters that there is one."""

    kind: Literal["probing"] = "probing"
    min_interval: PositiveDuration = 270.0
    max_interval: PositiveDuration = 590.0
    step: Annotated[PositiveDuration, Field(description="by which the interval grows")] = 60.0
    margin: Annotated[Duration, Field(description="kept below the maximum and below what worked last")] = 20.0
    answers: Annotated[int, Field(ge=1, description="answers at an interval before it grows")] = 3
    losses: Annotated[
        int, Field(ge=1, description="consecutive connections lost at an interval before it shrinks")
    ] = 3

    @model_validator(mode="after")
    def _room_to_probe(self) -> Self:
        if self.min_interval > self.max_interval - self.margin:
            raise ValueError(
                f"min_interval {self.min_interval:g}s is above max_interval {self.max_interval:g}s "
                f"less margin {self.margin:g}s"
            )
        return self

    def faster(self, factor: float) -> Self:
        """Return it with every time divided by ``factor``."""
        times = ("min_interval", "max_interval", "step", "margin")
        return self.model_copy(update={name: getattr(self, name) / factor for name in times})


class ProbedInterval:
    """What was learnt of one client's network."""

    __slots__ = ("_answers", "_losses", "_probing", "interval_s", "settled")

    def __init__(self, probing: Probing) -> None:
        self._probing = probing
        self._answers = 0
        self._losses = 0
        self.interval_s: float = probing.min_interval
        self.settled = False

    def on_answer(self) -> None:
        """A ping at this interval was answered: the mapping held."""
        self._losses = 0
        if self.settled:
            return
        self._answers += 1
        if self._answers >= self._probing.answers:
            most_s = self._probing.max_interval - self._probing.margin
            self._move_to(min(self.interval_s + self._probing.step, most_s))
            self.settled = self.interval_s >= most_s

    def on_loss(self) -> None:
        """A connection died at this interval. At the shortest one that says nothing about the mapping."""
        shortest_s = self._probing.min_interval
        if self.interval_s <= shortest_s:
            return
        self._losses += 1
        if self._losses < self._probing.losses:
            return
        if self.settled:
            self._move_to(shortest_s)
            self.settled = False
        else:
            back_s = self._probing.step + self._probing.margin
            self._move_to(max(self.interval_s - back_s, shortest_s))
            self.settled = True

    def _move_to(self, interval_s: float) -> None:
        self.interval_s = interval_s
        self._answers = self._losses = 0


class ProbingDetector(PingDetector):
    """Ping and deadline at the probed interval, for one connection.

    An unanswered ping is repeated at once (R = τ), up to ``max_failures`` times: waiting another interval of
    minutes would learn nothing. So a silent death is suspected within [kτ, I + kτ) at interval I. The first
    ping comes a whole interval after the connection: an earlier one would prove nothing about the interval.
    """

    __slots__ = ("_learnt",)

    def __init__(self, policy: LivenessPolicy, learnt: ProbedInterval, begun_s: float) -> None:
        timeout_s, interval_s = policy.heartbeat_timeout, learnt.interval_s
        probing = {"heartbeat_interval": interval_s, "retry_interval": timeout_s}
        super().__init__(policy.model_copy(update=probing), begun_s + interval_s)
        self._learnt = learnt

    def on_inbound(self, now_s: float) -> None:
        """Take any inbound frame; where a ping was out, the interval has proved itself, and may grow."""
        if self.verdict is Verdict.ALIVE and (self.awaiting_answer or self.failures):
            self._learnt.on_answer()
            self._interval_s = self._learnt.interval_s
        super().on_inbound(now_s)

    def on_end(self, cause: Cause) -> None:
        """Count a loss at this interval where a ping was out and the way was closed."""
        if cause in _WAY_WAS_CLOSED and (self.awaiting_answer or self.failures):
            self._learnt.on_loss()
