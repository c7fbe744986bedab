"""What lint looks at: one flat record of times and facts, made from a policy or a product's profile.

A `LivenessPolicy` cannot hold an impossible value; a foreign configuration can, so this record can too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Self

from harness.profiles import HeartbeatProfile, IdleLimit, NextTick, PingDeadline
from harness.theory import tcp_give_up_s
from reference_server.liveness import LivenessPolicy

__all__ = ["Extras", "Setting"]


@dataclass(frozen=True, slots=True)
class Setting:
    """Times in seconds; None where there is no such thing."""

    name: str
    interval_s: float | None = None  # T: of pings, or of the client's beats
    timeout_s: float | None = None  # tau: None when no ping's answer has a deadline
    deadline_sweep_s: float = 0.0  # how often the deadline is looked at; 0: a timer of its own
    max_failures: int = 1
    retry_s: float | None = None  # R, None: T
    idle_limit_s: float | None = None  # nothing heard for this long
    sweep_s: float = 0.0  # how often the idle limit is looked at; 0: a timer of its own
    session_ttl_s: float | None = None
    status_ttl_s: float | None = None
    resume_window_s: float | None = None
    max_sessions: int | None = None
    timed_by_page: bool = False
    answers_checked: bool = True  # False: only a failing send counts
    refreshed_by: Literal["sign_of_life", "open_socket"] = "sign_of_life"
    node_lease: bool = False  # something clears the records of a gateway that died
    close_wait_s: float = 0.0  # from the decision to the handler's notice
    library_keepalive: tuple[float, float] | None = (
        None  # (T, tau) of a second heartbeat below ours
    )
    promise_s: float | None = None  # dead clients are to be noticed within this
    expected_sessions: int | None = None

    @classmethod
    def of(cls, subject: LivenessPolicy | HeartbeatProfile | Setting) -> Setting:
        """Make one of whatever can be checked."""
        if isinstance(subject, Setting):
            return subject
        return (
            cls.of_profile(subject)
            if isinstance(subject, HeartbeatProfile)
            else cls.of_policy(subject)
        )

    @classmethod
    def of_policy(cls, policy: LivenessPolicy, name: str = "policy") -> Self:
        """A policy of ours."""
        return cls(
            name=name,
            interval_s=policy.heartbeat_interval,
            timeout_s=None if policy.heartbeat_interval is None else policy.heartbeat_timeout,
            max_failures=policy.max_failures,
            retry_s=policy.retry_interval,
            idle_limit_s=policy.session_timeout,
            sweep_s=policy.sweep_interval,
            session_ttl_s=policy.session_ttl,
            status_ttl_s=policy.status_ttl,
            resume_window_s=policy.resume_window,
            max_sessions=policy.max_sessions,
        )

    @classmethod
    def of_profile(cls, profile: HeartbeatProfile) -> Self:
        """A product's defaults."""
        detector = profile.detector
        setting = cls(profile.name, detector.traffic_gap_s, timed_by_page=profile.timed_by_page)
        match detector:
            case PingDeadline():
                return replace(
                    setting,
                    timeout_s=detector.timeout,
                    deadline_sweep_s=detector.sweep,
                    max_failures=detector.max_failures,
                    retry_s=detector.retry_interval,
                    close_wait_s=detector.close_wait,
                )
            case IdleLimit():
                return replace(setting, idle_limit_s=detector.limit, sweep_s=detector.sweep)
            case NextTick():
                return replace(
                    setting, timeout_s=detector.interval, max_failures=detector.max_failures
                )
        return setting

    @property
    def patience_s(self) -> float | None:
        """(k−1)R + τ, from the first unanswered ping to the suspicion; None without pings that are checked."""
        if self.interval_s is None or self.timeout_s is None or not self.answers_checked:
            return None
        return (self.max_failures - 1) * (self.retry_s or self.interval_s) + self.timeout_s

    @property
    def heartbeat_range_s(self) -> tuple[float, float] | None:
        """[lo, hi) of the heartbeat alone; of a send-only one, the kernel's give-up."""
        if self.interval_s is None:
            return None
        if not self.answers_checked:
            return tcp_give_up_s(), self.interval_s + tcp_give_up_s()
        if self.patience_s is None:
            return None
        lo_s = self.patience_s + self.close_wait_s
        return lo_s, self.interval_s + lo_s + self.deadline_sweep_s

    @property
    def idle_range_s(self) -> tuple[float, float] | None:
        """(lo, hi] of the idle limit alone, for a client that gives a sign of life every interval."""
        if self.idle_limit_s is None:
            return None
        return self.idle_limit_s - (self.interval_s or 0.0), self.idle_limit_s + self.sweep_s

    @property
    def detection_range_s(self) -> tuple[float, float] | None:
        """[lo, hi) of whichever comes first; None when nothing notices a silent client."""
        ranges = [r for r in (self.heartbeat_range_s, self.idle_range_s) if r is not None]
        if not ranges:
            return None
        return min(lo for lo, _ in ranges), min(hi for _, hi in ranges)


@dataclass(frozen=True, slots=True)
class Extras:
    """What a policy or a profile does not say; None: as the setting has it. Fields as in `Setting`."""

    timed_by_page: bool | None = None
    answers_checked: bool | None = None
    refreshed_by: Literal["sign_of_life", "open_socket"] | None = None
    node_lease: bool | None = None
    close_wait_s: float | None = None
    library_keepalive: tuple[float, float] | None = None
    promise_s: float | None = None
    expected_sessions: int | None = None

    def applied_to(self, setting: Setting) -> Setting:
        """The setting with what is said here."""
        said = {key: getattr(self, key) for key in self.__slots__}
        return replace(setting, **{key: value for key, value in said.items() if value is not None})
