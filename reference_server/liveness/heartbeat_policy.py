"""The liveness policy, and its own detector: ping and deadline. Pure: time is an argument.

Detection latency of a silent death at a uniformly random phase U ~ Uniform(0, T) of the heartbeat:
``U + (k-1)R + tau``, so it lies in ``[(k-1)R + tau, T + (k-1)R + tau)``. With tau > T several pings are in flight, and
R is T.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from reference_server.durations import Duration, PositiveDuration
from reference_server.liveness.detector import Action, DetectorSettings, PingingDetector, Verdict

__all__ = ["LivenessPolicy", "OverlappingPingDetector", "Ping", "PingDetector", "TcpKeepalive"]


class TcpKeepalive(BaseModel):
    """The kernel's own probes of an idle connection. Seconds; Linux takes whole ones.

    They are not sent while data is in flight, and a frozen client's kernel answers them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    idle: Annotated[PositiveDuration, Field(description="without a segment for this long, it probes")] = (
        7200.0
    )
    interval: Annotated[PositiveDuration, Field(description="from one probe to the next")] = 75.0
    count: Annotated[int, Field(ge=1, description="unanswered probes that end the connection")] = 9

    @property
    def patience_s(self) -> float:
        """From the last segment received to the end of the connection."""
        return self.idle + self.count * self.interval

    def faster(self, factor: float) -> TcpKeepalive:
        """Return it with its times divided by ``factor``."""
        return TcpKeepalive(idle=self.idle / factor, interval=self.interval / factor, count=self.count)


class LivenessPolicy(BaseModel):
    """When a gateway pings, when it calls a client dead, how long its records live. Seconds.

    One unanswered ping at its deadline is one failure, any inbound frame resets the count to zero,
    and the ``max_failures``-th consecutive failure is suspicion.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    heartbeat_interval: Annotated[
        PositiveDuration | None, Field(description="T: from one ping to the next; null: no heartbeat")
    ] = 30.0
    heartbeat_timeout: Annotated[
        PositiveDuration,
        Field(description="τ: the answer's deadline; above T several pings are in flight, and R = T"),
    ] = 10.0
    max_failures: Annotated[
        int, Field(ge=1, description="k: consecutive unanswered pings that make a suspicion")
    ] = 3
    retry_interval: Annotated[
        PositiveDuration | None, Field(description="R: from an unanswered ping to the next, τ ≤ R; default T")
    ] = None
    data_counts: Annotated[
        bool, Field(description="whether any frame of a client is a sign of life, or an answer alone")
    ] = True
    first_ping: Annotated[
        Literal["random", "interval"],
        Field(description="of a connection: at a random phase of T, or T after it began"),
    ] = "random"
    session_timeout: Annotated[
        PositiveDuration | None, Field(description="idle limit: no inbound frame for this long")
    ] = 300.0
    sweep_interval: Annotated[
        PositiveDuration, Field(description="S: how often the idle limit is checked")
    ] = 30.0
    session_ttl: Annotated[PositiveDuration, Field(description="TTL of the session record")] = 86400.0
    status_ttl: Annotated[PositiveDuration, Field(description="TTL of the status record")] = 7200.0
    code_ttl: Annotated[PositiveDuration, Field(description="TTL of a verification code")] = 300.0
    resume_window: Annotated[
        Duration,
        Field(description="a client may come back to its session this long after its last sign of life"),
    ] = 10.0
    max_sessions: Annotated[
        int | None, Field(ge=1, description="memory pressure: above it the oldest idle session goes")
    ] = None
    when_full: Annotated[
        Literal["evict", "refuse"],
        Field(description="at max_sessions: the oldest idle session goes, or the newcomer is refused"),
    ] = "evict"
    tcp_user_timeout: Annotated[
        PositiveDuration | None,
        Field(description="TCP_USER_TIMEOUT of each socket; null: the kernel's own patience"),
    ] = None
    tcp_keepalive: Annotated[
        TcpKeepalive | None, Field(description="SO_KEEPALIVE of each socket; null: none")
    ] = None
    close_detection: Annotated[
        Literal["all", "frames", "none"],
        Field(
            description="which ends of a connection are acted on when they are seen: all; close frames "
            "alone, as where a callback does not come after FIN, RST or the kernel's give-up; or none"
        ),
    ] = "all"

    # Checked at the field, not on the whole model: a scenario with a misspelt key elsewhere in this block still gets
    # told about it.
    @field_validator("retry_interval", mode="after")
    @classmethod
    def _deadline_fits(cls, value: float | None, info: ValidationInfo) -> float | None:
        interval, timeout = info.data.get("heartbeat_interval"), info.data.get("heartbeat_timeout")
        if value is None or timeout is None:
            return value
        if interval is not None and timeout > interval:
            raise ValueError(
                f"heartbeat_timeout ({timeout:g}s) is above heartbeat_interval ({interval:g}s): pings go on every "
                "heartbeat_interval, whether answered or not; allowed then: no retry_interval"
            )
        if value < timeout:
            raise ValueError(
                f"{value:g}s is below heartbeat_timeout ({timeout:g}s); "
                "allowed: retry_interval >= heartbeat_timeout"
            )
        return value

    @property
    def interval_s(self) -> float:
        """T in seconds.

        Raises:
            ValueError: the policy has no heartbeat.
        """
        if self.heartbeat_interval is None:
            raise ValueError("this policy has no heartbeat: heartbeat_interval is null")
        return self.heartbeat_interval

    @property
    def retry_s(self) -> float:
        """R in seconds: ``retry_interval``, or the heartbeat interval where it is not set."""
        return self.retry_interval or self.heartbeat_interval or self.heartbeat_timeout

    @property
    def patience_s(self) -> float:
        """(k−1)R + τ in seconds: from the first unanswered ping to the suspicion."""
        return (self.max_failures - 1) * self.retry_s + self.heartbeat_timeout

    @property
    def detection_range_s(self) -> tuple[float, float] | None:
        """[lo, hi) of the heartbeat's detection latency of a silent death; None without heartbeat."""
        if self.heartbeat_interval is None:
            return None
        return self.patience_s, self.heartbeat_interval + self.patience_s

    def faster(self, factor: float) -> LivenessPolicy:
        """Return the policy with every time divided by ``factor`` (counts stay)."""
        times = {
            name: getattr(self, name) / factor
            for name in type(self).model_fields
            if isinstance(getattr(self, name), float)
        }
        if self.tcp_keepalive is not None:
            return self.model_copy(update=times | {"tcp_keepalive": self.tcp_keepalive.faster(factor)})
        return self.model_copy(update=times)


_PING, _SUSPECTED = Action.PING, Verdict.SUSPECTED  # a member of an enum is looked up slowly


class Ping(DetectorSettings):
    """Ping and deadline, as the policy says: missing answers are counted."""

    kind: Literal["ping"] = "ping"
    frame: Annotated[
        Literal["json", "ping"],
        Field(description="json: the application answers; ping: protocol ping, a frozen page still answers"),
    ] = "json"

    @property
    def protocol_ping(self) -> bool:
        """As it is configured."""
        return self.frame == "ping"


class PingDetector(PingingDetector):
    """Ping and deadline, for one connection: one ping in flight at a time (tau <= T, or R > T).

    Guarantees, for a caller that is on time:

    * never suspects before (k-1)R + tau after the last sign of life;
    * suspects at the latest T + (k-1)R + tau after a silent death (R <= T);
    * never suspects a client that answers each ping within tau.

    A ping that is sent late does not move those after it: else one stall of a gateway would gather all the
    pings that fell due in it, and they would burst together ever after.

    Raises:
        ValueError: the policy has no heartbeat.
    """

    __slots__ = ("_last_ping_s", "_max", "_phase_s", "_retry_s", "_timeout_s")

    def __init__(self, policy: LivenessPolicy, first_ping_s: float) -> None:
        super().__init__(policy.interval_s, first_ping_s)
        self._timeout_s: float = policy.heartbeat_timeout
        self._retry_s: float = policy.retry_s
        self._max = policy.max_failures
        self._last_ping_s = self._phase_s = first_ping_s - self._interval_s

    def on_inbound(self, now_s: float) -> None:
        """Take any inbound frame: the peer lives, the outstanding ping counts as answered."""
        if self.verdict is _SUSPECTED or not (self.awaiting_answer or self.failures):
            return
        self.awaiting_answer = False
        self.failures = 0
        # With R > T, or after a late ping, the regular one may be overdue already: then it is due now.
        self.due_s = max(self._phase_s + self._interval_s, now_s)

    def on_time(self, now_s: float) -> Action:
        """Say what is to be done at ``now_s``; ask again when the new ``due_s`` has come."""
        if now_s < self.due_s:  # for ever, once it has suspected
            return Action.NOTHING
        if not self.awaiting_answer:
            return self._ping(now_s)
        self.failures += 1
        if self.failures >= self._max:
            return self._suspect()
        self.awaiting_answer = False
        self.due_s = self._last_ping_s + self._retry_s
        if now_s >= self.due_s:
            self._ping(now_s)
            return Action.MISSED_AND_PING
        return Action.MISSED

    def _ping(self, now_s: float) -> Action:
        self.awaiting_answer = True
        whole_intervals = (now_s - self.due_s) // self._interval_s  # 0, but for a long stall
        self._phase_s = self.due_s + whole_intervals * self._interval_s
        self._last_ping_s = now_s  # not due_s: a late ping still gets its whole deadline
        self.due_s = now_s + self._timeout_s
        return _PING


class OverlappingPingDetector(PingingDetector):
    """Ping and deadline where tau > T: a ping every T, whether the ones before are answered or not.

    Each ping has its own deadline; any inbound frame clears all pings in flight and the failures. The guarantees are
    those of `PingDetector` with R = T: a silent death is suspected within [(k-1)T + tau, kT + tau).

    Raises:
        ValueError: the policy has no heartbeat.
    """

    __slots__ = ("_deadlines_s", "_max", "_next_ping_s", "_timeout_s")

    def __init__(self, policy: LivenessPolicy, first_ping_s: float) -> None:
        super().__init__(policy.interval_s, first_ping_s)
        self._timeout_s: float = policy.heartbeat_timeout
        self._max = policy.max_failures
        self._next_ping_s = first_ping_s
        self._deadlines_s: list[float] = []  # of the pings in flight, the oldest first

    def on_inbound(self, now_s: float) -> None:
        """Take any inbound frame: the peer lives, all pings in flight count as answered."""
        if self.verdict is not _SUSPECTED and (self._deadlines_s or self.failures):
            self._deadlines_s.clear()
            self.failures = 0
            self._look_ahead()

    def on_time(self, now_s: float) -> Action:
        """Say what is to be done at ``now_s``; ask again when the new ``due_s`` has come."""
        if now_s < self.due_s:  # for ever, once it has suspected
            return Action.NOTHING
        if not self.awaiting_answer:
            self._deadlines_s.append(now_s + self._timeout_s)  # a late ping still gets its whole deadline
            whole_intervals = (now_s - self._next_ping_s) // self._interval_s  # 0, but for a long stall
            self._next_ping_s += (whole_intervals + 1) * self._interval_s
            self._look_ahead()
            return _PING
        del self._deadlines_s[0]
        self.failures += 1
        if self.failures >= self._max:
            return self._suspect()
        self._look_ahead()
        return Action.MISSED

    def _look_ahead(self) -> None:
        self.awaiting_answer = bool(self._deadlines_s) and self._deadlines_s[0] <= self._next_ping_s
        self.due_s = self._deadlines_s[0] if self.awaiting_answer else self._next_ping_s
