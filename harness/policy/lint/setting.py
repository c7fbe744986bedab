"""What lint looks at: one flat record of times and facts, and where it comes from.

From a policy, a product's profile, a scenario by name, a YAML file or raw keys to a `Setting`. A `LivenessPolicy`
cannot hold an impossible value; a foreign configuration can, so this record can too. Judges nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import yaml

from harness.policy.profiles import (
    HeartbeatProfile,
    IdleLimit,
    IdleTimerProfile,
    NetworkProfile,
    NextTick,
    PingDeadline,
    Status,
    load_profiles,
)
from harness.theory.tcp import tcp_give_up_s
from reference_server.errors import FlatlineError
from reference_server.liveness.heartbeat_policy import LivenessPolicy
from reference_server.presets import read_b_config
from scenarios.load import built_in, load_scenario

__all__ = ["Extras", "LintInputError", "Setting", "middleboxes_of", "setting_of", "setting_of_yaml"]


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
    library_keepalive: tuple[float, float] | None = None  # (T, tau) of a second heartbeat below ours
    promise_s: float | None = None  # dead clients are to be noticed within this
    expected_sessions: int | None = None

    @classmethod
    def of(cls, subject: LivenessPolicy | HeartbeatProfile | Setting) -> Setting:
        """Make one of whatever can be checked."""
        if isinstance(subject, Setting):
            return subject
        return cls.of_profile(subject) if isinstance(subject, HeartbeatProfile) else cls.of_policy(subject)

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
                return replace(setting, timeout_s=detector.interval, max_failures=detector.max_failures)
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


class LintInputError(FlatlineError):
    """What is to be checked does not exist or cannot be read; lists every problem."""


def setting_of_yaml(raw: Mapping[str, Any], name: str = "configuration") -> Setting:
    """System B's configuration: two sections `system` and `websocket`, whole seconds or durations with a unit.

    A configuration without a deadline gets 10 s, or its interval where that is shorter.

    Raises:
        LintInputError: unknown or missing keys, values that are not positive.
    """
    try:
        found = read_b_config(raw)
    except ValueError as error:
        raise LintInputError(f"{name}: {error}") from error
    if not found:
        raise LintInputError(f"{name}: nothing to check in it")
    interval_s = found.get("heartbeat_interval")
    default_s = LivenessPolicy().heartbeat_timeout
    return Setting(
        name=name,
        interval_s=interval_s,
        timeout_s=None if interval_s is None else found.get("heartbeat_timeout", default_s),
        max_failures=found.get("max_failures", 1),
        idle_limit_s=found.get("session_timeout"),
        max_sessions=found.get("max_sessions"),
    )


def setting_of(name_or_path: str) -> Setting:
    """Find what is to be checked: a heartbeat profile, a built-in scenario, or a YAML file of either form.

    Raises:
        LintInputError: no such name or file, or a file that is neither.
        ScenarioError: a scenario file with problems.
    """
    for profile in load_profiles().heartbeats:
        if profile.name == name_or_path:
            return Setting.of_profile(profile)
    path = Path(name_or_path)
    if name_or_path not in built_in():
        try:
            raw = yaml.safe_load(path.read_text())
        except OSError as error:
            names = [p.name for p in load_profiles().heartbeats] + list(built_in())
            raise LintInputError(
                f"{name_or_path}: {error.strerror}; names that can be checked: {', '.join(names)}"
            ) from error
        except (yaml.YAMLError, UnicodeError) as error:
            raise LintInputError(f"{name_or_path}: not YAML: {error}") from error
        if isinstance(raw, Mapping) and raw.keys() & {"system", "websocket"}:
            return setting_of_yaml(raw, name=name_or_path)
    scenario = load_scenario(name_or_path)
    return Setting.of_policy(scenario.liveness, name=scenario.name)


def middleboxes_of(network: NetworkProfile) -> tuple[IdleTimerProfile, ...]:
    """The boxes on a network's way: those that it names, and its own idle timer."""
    named = tuple(p for p in load_profiles().idle_timers if p.name in network.middleboxes)
    if network.idle_timer is None:
        return named
    own = IdleTimerProfile(
        name=network.name,
        title=f"{network.title}: its idle timer",
        idle_timeout=network.idle_timer.idle_timeout,
        expiry=network.idle_timer.expiry,
        source=network.source,
        status=(Status.ASSUMED,),
    )
    return (*named, own)
