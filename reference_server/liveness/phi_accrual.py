"""φ-accrual failure detectors as Akka and Cassandra build them. Pure: time is an argument.

From pings sent every T and the frames that come back to a suspicion: the silence since the last frame is held
against the inter-arrival times learnt so far, and the peer is suspected once φ = −log10 P(a longer one)
reaches a threshold. Unlike `PingDetector` no answer has a deadline, and no answer is counted as missed.

    frame ── learnt inter-arrivals: mean, σ ──► silence at which φ = threshold ──► suspicion
      every T: ping, whatever came back

Sources: Hayashibara, Défago, Yared, Katayama, "The φ accrual failure detector" (SRDS 2004); Akka's
PhiAccrualFailureDetector; Cassandra's FailureDetector and ArrivalWindow. Where those start from a guess of one
second between heartbeats, these start from T. What they leave to the caller stays with the caller: Cassandra's
distrust of its own pauses is the gateway's second look after it has read its sockets.
"""

from __future__ import annotations

import math
from array import array
from typing import Annotated, Literal, Protocol, Self

from pydantic import Field

from reference_server.durations import Duration, PositiveDuration
from reference_server.liveness.detector import Action, DetectorSettings, PingingDetector, Verdict
from reference_server.liveness.heartbeat_policy import LivenessPolicy

__all__ = ["AkkaArrivals", "Arrivals", "CassandraArrivals", "PhiAkka", "PhiCassandra", "PhiDetector"]

_LN10 = math.log(10)
# Akka's logistic approximation of the normal tail: e = exp(−y(1.5976 + 0.070566 y²)), p = e/(1 + e).
_LINEAR, _CUBIC = 1.5976, 0.070566


class _Parameters(DetectorSettings):
    threshold: Annotated[float, Field(gt=0, description="φ at which a client is suspected")] = 8.0
    samples: Annotated[int, Field(ge=2, description="inter-arrivals remembered")] = 1000
    counts_answers = False

    def why_missed(self, timeout_s: float) -> str:
        """Say for people what a failure is: no answer has a deadline here."""
        return f"silent until φ reached {self.threshold:g}"


class PhiAkka(_Parameters):
    """φ of a normal law of inter-arrivals, as Akka computes it. Its defaults, which are made for T = 1 s."""

    kind: Literal["phi_akka"] = "phi_akka"
    min_sigma: Annotated[PositiveDuration, Field(description="floor of the deviation")] = 0.1
    acceptable_pause: Annotated[Duration, Field(description="added to the mean")] = 3.0

    def faster(self, factor: float) -> Self:
        """Return it with every time divided by ``factor``."""
        times = ("min_sigma", "acceptable_pause")
        return self.model_copy(update={name: getattr(self, name) / factor for name in times})

    def arrivals(self, expected_s: float) -> AkkaArrivals:
        """Return what a new connection begins to learn with; ``expected_s`` from one frame to the next."""
        return AkkaArrivals(self, expected_s)


class PhiCassandra(_Parameters):
    """φ of an exponential law of inter-arrivals, as Cassandra computes it. Its defaults."""

    kind: Literal["phi_cassandra"] = "phi_cassandra"

    def arrivals(self, expected_s: float) -> CassandraArrivals:
        """Return what a new connection begins to learn with; ``expected_s`` from one frame to the next."""
        return CassandraArrivals(self, expected_s)


class Arrivals(Protocol):
    """What was learnt of the times between two frames."""

    @property
    def patience_s(self) -> float:
        """The silence at which φ reaches the threshold."""

    def add(self, interval_s: float) -> None:
        """Learn one inter-arrival time."""


class _Window:
    """The last inter-arrivals, at most ``size``: 8 bytes each, taken as they come."""

    __slots__ = ("_oldest", "_size", "_values")

    def __init__(self, size: int) -> None:
        self._size = size
        self._oldest = 0
        self._values = array("d")

    def __len__(self) -> int:
        return len(self._values)

    def push(self, value: float) -> float:
        """Take one in; return the one that it displaces, 0 where there was room."""
        if len(self._values) < self._size:
            self._values.append(value)
            return 0.0
        displaced = self._values[self._oldest]
        self._values[self._oldest] = value
        self._oldest = (self._oldest + 1) % self._size
        return displaced


class AkkaArrivals:
    """Normal inter-arrivals: φ reaches the threshold at mean + pause + y·max(σ, floor), y from the threshold.

    Starts, as Akka does, with two samples: a quarter of the expected interval below it and above.
    """

    __slots__ = ("_floor_s", "_pause_s", "_squares", "_sum", "_window", "_y")

    def __init__(self, parameters: PhiAkka, expected_s: float) -> None:
        self._pause_s = parameters.acceptable_pause
        self._floor_s = parameters.min_sigma
        self._y = _tail_quantile(parameters.threshold)
        self._window = _Window(parameters.samples)
        self._sum = self._squares = 0.0
        self._learn(expected_s * 0.75)
        self._learn(expected_s * 1.25)

    @property
    def patience_s(self) -> float:
        """The silence at which φ reaches the threshold."""
        n = len(self._window)
        mean_s = self._sum / n
        variance = max(0.0, self._squares / n - mean_s * mean_s)
        return mean_s + self._pause_s + self._y * max(math.sqrt(variance), self._floor_s)

    def add(self, interval_s: float) -> None:
        """Learn one inter-arrival time, unless φ had passed the threshold by then: Akka leaves that out."""
        if interval_s <= self.patience_s:
            self._learn(interval_s)

    def _learn(self, interval_s: float) -> None:
        displaced_s = self._window.push(interval_s)
        self._sum += interval_s - displaced_s
        self._squares += interval_s * interval_s - displaced_s * displaced_s


class CassandraArrivals:
    """Exponential inter-arrivals: φ = t/(mean·ln 10).

    Starts, as Cassandra does, with one sample of twice the expected interval, and leaves out longer ones.
    """

    __slots__ = ("_factor", "_longest_s", "_sum", "_window")

    def __init__(self, parameters: PhiCassandra, expected_s: float) -> None:
        self._factor = parameters.threshold * _LN10
        self._longest_s = self._sum = 2 * expected_s
        self._window = _Window(parameters.samples)
        self._window.push(self._longest_s)

    @property
    def patience_s(self) -> float:
        """The silence at which φ reaches the threshold."""
        return self._factor * self._sum / len(self._window)

    def add(self, interval_s: float) -> None:
        """Learn one inter-arrival time."""
        if interval_s <= self._longest_s:
            self._sum += interval_s - self._window.push(interval_s)


class PhiDetector(PingingDetector):
    """Suspects by φ, for one connection. ``failures`` is 1 once it has suspected: no missed answers are counted.

    Guarantees, for a caller that is on time: suspects exactly at the silence at which φ reaches the threshold,
    and pings every T until then. A ping that is sent late does not move those after it.

    Args:
        policy: its T.
        arrivals: what is known of the times between two frames.
        begun_s: the frame that began the connection.
        first_ping_s: the first ping's time.

    Raises:
        ValueError: the policy has no heartbeat.
    """

    __slots__ = ("_arrivals", "_heard_s", "_next_ping_s", "_suspect_s")

    def __init__(
        self, policy: LivenessPolicy, arrivals: Arrivals, begun_s: float, first_ping_s: float
    ) -> None:
        super().__init__(policy.interval_s, first_ping_s)
        self._arrivals = arrivals
        self._heard_s = begun_s
        self._next_ping_s = first_ping_s
        self._suspect_s = begun_s + arrivals.patience_s
        self._look_ahead()

    def on_inbound(self, now_s: float) -> None:
        """Take any inbound frame: learn the time since the last one; the silence begins anew."""
        if self.verdict is Verdict.SUSPECTED:
            return
        self._arrivals.add(now_s - self._heard_s)
        self._heard_s = now_s
        self._suspect_s = now_s + self._arrivals.patience_s
        self._look_ahead()

    def on_time(self, now_s: float) -> Action:
        """Say what is to be done at ``now_s``; ask again when the new ``due_s`` has come."""
        if self.verdict is Verdict.SUSPECTED or now_s < self.due_s:
            return Action.NOTHING
        if now_s >= self._suspect_s:
            self.failures = 1
            return self._suspect()
        whole_intervals = (now_s - self._next_ping_s) // self._interval_s  # 0, but for a stall
        self._next_ping_s += (whole_intervals + 1) * self._interval_s
        self._look_ahead()
        return Action.PING

    def _look_ahead(self) -> None:
        self.awaiting_answer = self._suspect_s <= self._next_ping_s
        self.due_s = self._suspect_s if self.awaiting_answer else self._next_ping_s


def _tail_quantile(threshold: float) -> float:
    """Solve φ(y) = threshold for the standardised silence y: the one real root of Akka's cubic.

    0.070566 y³ + 1.5976 y = −ln e with −ln e = threshold·ln 10 + ln(1 − 10^−threshold). Source: the
    hyperbolic form of Cardano's root for a cubic without a quadratic term and with a positive linear one.
    """
    right = threshold * _LN10 + math.log1p(-(10.0**-threshold))
    p, q = _LINEAR / _CUBIC, -right / _CUBIC
    return -2 * math.sqrt(p / 3) * math.sinh(math.asinh(1.5 * q / p * math.sqrt(3 / p)) / 3)
