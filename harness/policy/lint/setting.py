"""What lint looks at: one flat record of times and facts, and what follows from it.

From a policy, a product's profile or a whole scenario to a `Setting`; from that to the bounds of each layer that
notices a silent client. A `LivenessPolicy` cannot hold an impossible value; a foreign configuration can, and so can
this record. Reads no files (`sources.py` does) and judges nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, Self

from harness.policy.profiles import (
    HeartbeatProfile,
    IdleLimit,
    IdleTimerProfile,
    Never,
    NextTick,
    PingDeadline,
    SendOnly,
    Status,
)
from harness.theory.predict import predict
from harness.theory.tcp import ladder_give_up_s, tcp_give_up_s, user_timeout_fires_s
from reference_server.liveness.heartbeat_policy import LivenessPolicy, TcpKeepalive
from reference_server.liveness.kinds import ClientBeats, Ping, Probing
from reference_server.presets import find_preset
from scenarios.client_rules import Reconnect, Traffic, TrafficOneWay
from scenarios.distributions import Distribution, Uniform
from scenarios.faults.host_crash import HostCrash
from scenarios.faults.throttled_timers import ThrottledTimers
from scenarios.gateway import Gateway
from scenarios.network import Network
from scenarios.schema import Scenario

__all__ = ["Bounds", "Extras", "Setting", "boxes_of_scenario"]

HIDDEN_PAGE_S = 60.0
"""Chrome wakes the timers of a page that has been hidden for five minutes once in so many seconds."""

_ALMOST_ALL = 0.999  # of the draws of a law


class Bounds(NamedTuple):
    """From a silent death to a layer's notice: earliest and latest, seconds."""

    lo_s: float
    hi_s: float

    def __str__(self) -> str:
        return f"{self.lo_s:g} to {self.hi_s:g} s" if self.lo_s != self.hi_s else f"{self.hi_s:g} s"


@dataclass(frozen=True, slots=True)
class Setting:
    """Times in seconds; None where there is no such thing."""

    name: str
    known: bool = True  # False: nothing is known but the boxes on the way
    # How the gateway decides.
    interval_s: float | None = None  # T: of pings, or of the client's heartbeats
    timeout_s: float | None = None  # tau: None when no ping's answer has a deadline
    deadline_sweep_s: float = 0.0  # how often the deadline is looked at; 0: a timer of its own
    deadline_early_s: float = 0.0  # a deadline that is rounded down comes up to this much sooner
    max_failures: int = 1
    retry_s: float | None = None  # R, None: T
    beats_from: Literal["gateway", "client"] = "gateway"
    protocol_ping: bool = False  # heartbeats are protocol pings: no data frames, and a frozen page answers
    answers_checked: bool = True  # False: only a failing send counts
    detector_range_s: Bounds | None = None  # of a detector whose bounds do not follow from T, tau and k
    detector_unknown: str = ""  # why its bounds are not known
    data_counts: bool = True  # False: only answers and heartbeats are signs of life
    idle_limit_s: float | None = None  # nothing heard for this long
    sweep_s: float = 0.0  # how often the idle limit is looked at; 0: a timer of its own
    close_wait_s: float = 0.0  # from the decision to the handler's notice
    library_keepalive: tuple[float, float] | None = None  # (T, tau) of a second heartbeat below ours
    # The kernel.
    give_up_s: float = tcp_give_up_s()  # unacknowledged data ends a connection after this
    user_timeout_s: float | None = None  # TCP_USER_TIMEOUT
    user_timeout_late_s: float = 0.0  # it waits for the next retransmission
    keepalive: TcpKeepalive | None = None
    close_detection: Literal["all", "frames", "none"] = "all"
    # Records in the store.
    session_ttl_s: float | None = None
    status_ttl_s: float | None = None
    records_expire: bool = True
    refreshed: Literal["when_half_gone", "at_each_frame", "by_the_keepalive", "never"] = "when_half_gone"
    written_at_login: bool = False
    plain_online_set: bool = False  # a SET without expiry per member
    flush_at_start: bool = False
    second_login: Literal["refuse", "take_over"] = "take_over"
    survives_connection: bool = False
    resume_window_s: float | None = None
    page_load: Distribution | None = None
    max_sessions: int | None = None
    expected_sessions: int | None = None
    # Nodes.
    nodes: int = 1
    lease_s: float | None = None  # a lease's life and the look for ended ones; None: no lease is known
    gateway: Gateway | None = None
    # Clients and the way.
    client_idle_limit_s: float | None = None  # a client that hears nothing for this long reconnects
    reconnect: Reconnect | None = None
    timed_by_page: bool = False
    answers_by_page_timer: bool = False  # as a hidden page's, by a timer that the browser throttles
    hidden_page_s: float = HIDDEN_PAGE_S
    traffic: Traffic = field(default_factory=Traffic)
    network: Network | None = None
    promise_s: float | None = None  # dead clients are to be noticed within this
    # How a fix is written: field -> (its key, units a second); others in the keys of a scenario.
    spelling: Mapping[str, tuple[str, float]] = field(default_factory=dict)
    not_checked: tuple[str, ...] = ()

    @classmethod
    def of(cls, subject: LivenessPolicy | HeartbeatProfile | Scenario | Setting) -> Setting:
        """Make one of whatever can be checked."""
        match subject:
            case Setting():
                return subject
            case HeartbeatProfile():
                return cls.of_profile(subject)
            case Scenario():
                return cls.of_scenario(subject)
        return cls.of_policy(subject)

    @classmethod
    def unknown(cls, name: str) -> Self:
        """Nothing is known of what is behind the boxes."""
        return cls(name, known=False)

    @classmethod
    def of_policy(cls, policy: LivenessPolicy, name: str = "policy") -> Self:
        """A policy of ours."""
        return cls(
            name=name,
            interval_s=policy.heartbeat_interval,
            timeout_s=None if policy.heartbeat_interval is None else policy.heartbeat_timeout,
            max_failures=policy.max_failures,
            retry_s=policy.retry_interval,
            data_counts=policy.data_counts,
            idle_limit_s=policy.session_timeout,
            sweep_s=policy.sweep_interval,
            user_timeout_s=policy.tcp_user_timeout,
            keepalive=policy.tcp_keepalive,
            close_detection=policy.close_detection,
            session_ttl_s=policy.session_ttl,
            status_ttl_s=policy.status_ttl,
            resume_window_s=policy.resume_window,
            max_sessions=policy.max_sessions,
        )

    @classmethod
    def of_scenario(cls, scenario: Scenario) -> Setting:
        """Everything that a scenario says: policy, detector, records, lease, network, clients."""
        policy, records, kind = scenario.liveness, scenario.records, scenario.detector
        hidden = [fault.every for fault in scenario.faults if isinstance(fault, ThrottledTimers)]
        lease = scenario.gateway.lease
        has_lease = scenario.preset is None or find_preset(scenario.preset).node_lease
        from_client = isinstance(kind, ClientBeats)
        setting = replace(
            cls.of_policy(policy, scenario.name),
            beats_from="client" if from_client else "gateway",
            timeout_s=None if from_client or policy.heartbeat_interval is None else policy.heartbeat_timeout,
            answers_checked=not kind.looks_at_sockets,
            protocol_ping=kind.protocol_ping,
            give_up_s=ladder_give_up_s(scenario.network.rto_ladder),
            user_timeout_late_s=user_timeout_fires_s(0.0, scenario.network.rto_ladder),
            records_expire=records.expire,
            refreshed=records.refreshed,
            written_at_login=records.status_written == "at_login",
            plain_online_set=records.online_set == "plain",
            flush_at_start=records.flush_at_start,
            second_login=scenario.sessions.second_login,
            survives_connection=scenario.sessions.survives_connection,
            page_load=scenario.reconnect.page_load,
            expected_sessions=scenario.clients,
            nodes=scenario.gateway.nodes,
            lease_s=lease.ttl + lease.check if has_lease else None,
            gateway=scenario.gateway,
            client_idle_limit_s=scenario.reconnect.idle_limit,
            reconnect=scenario.reconnect,
            timed_by_page=from_client and bool(hidden),
            answers_by_page_timer=not from_client and bool(hidden),
            hidden_page_s=max(hidden, default=HIDDEN_PAGE_S),
            traffic=scenario.traffic,
            network=scenario.network,
            not_checked=tuple(
                f"fault {fault.label}: an experiment on {fault.share:.0%} of the clients"
                for fault in scenario.faults
                if hasattr(fault, "nat")
            ),
        )
        if isinstance(kind, Ping | ClientBeats) or kind.looks_at_sockets or policy.heartbeat_interval is None:
            return setting
        interval_s = policy.heartbeat_interval
        if isinstance(kind, Probing):
            interval_s = kind.max_interval - kind.margin
        bounds, unknown = _by_theory(scenario)
        return replace(setting, interval_s=interval_s, detector_range_s=bounds, detector_unknown=unknown)

    @classmethod
    def of_profile(cls, profile: HeartbeatProfile) -> Self:
        """A product's defaults."""
        detector = profile.detector
        setting = cls(
            name=profile.name,
            interval_s=detector.traffic_gap_s,
            timed_by_page=profile.timed_by_page,
            beats_from="client" if profile.beats_from == "client" else "gateway",
            protocol_ping=profile.level == "protocol",
            status_ttl_s=profile.record_ttl,
        )
        match detector:
            case PingDeadline():
                return replace(
                    setting,
                    timeout_s=detector.timeout,
                    deadline_sweep_s=detector.sweep,
                    deadline_early_s=detector.round_down,
                    max_failures=detector.max_failures,
                    retry_s=detector.retry_interval,
                    close_wait_s=detector.close_wait,
                )
            case IdleLimit():
                return replace(
                    setting, idle_limit_s=detector.limit, sweep_s=detector.sweep + detector.round_up
                )
            case NextTick():
                return replace(setting, timeout_s=detector.interval, max_failures=detector.max_failures)
            case SendOnly():
                return replace(setting, answers_checked=False)
            case Never():
                return setting
        return replace(setting, detector_unknown=detector.missing)

    @property
    def patience_s(self) -> float | None:
        """(k−1)R + τ, from the first unanswered ping to the suspicion; None without pings that are checked."""
        if self.interval_s is None or self.timeout_s is None or not self.answers_checked:
            return None
        return (self.max_failures - 1) * (self.retry_s or self.interval_s) + self.timeout_s

    @property
    def sign_of_life_s(self) -> float | None:
        """Longest time between two frames of a healthy, quiet client that the gateway hears; None: for ever."""
        return _shorter(
            self.interval_s, _longest_gap_s(self.traffic.to_gateway) if self.data_counts else None
        )

    @property
    def layers(self) -> dict[str, Bounds]:
        """What ends the connection of a client that falls silent, and when; empty: nothing does."""
        found: dict[str, Bounds] = {}
        patience_s, interval_s = self.patience_s, self.interval_s
        if self.detector_range_s is not None:
            found["heartbeat"] = self.detector_range_s
        elif patience_s is not None and interval_s is not None and not self.detector_unknown:
            lo_s = max(0.0, patience_s - self.deadline_early_s) + self.close_wait_s
            hi_s = interval_s + patience_s + self.deadline_sweep_s + self.close_wait_s
            found["heartbeat"] = Bounds(lo_s, hi_s)
        if self.idle_limit_s is not None:
            age_s = self.idle_limit_s if self.sign_of_life_s is None else self.sign_of_life_s
            found["idle limit"] = Bounds(
                max(0.0, self.idle_limit_s - age_s), self.idle_limit_s + self.sweep_s
            )
        return found | self._kernel()

    def _kernel(self) -> dict[str, Bounds]:
        """TCP ends what is not acknowledged; its keepalive only a connection on which nothing is in flight."""
        looks = 0.0 if self.close_detection == "all" else self.interval_s or 0.0
        if self.close_detection != "all" and self.answers_checked:
            return {}  # the end of the socket is not acted on, and no detector looks at it
        sends_s = self.interval_s if self.beats_from == "gateway" else None
        sends_s = _shorter(sends_s, _longest_gap_s(self.traffic.to_client))
        if sends_s is not None:
            if self.user_timeout_s is None:
                return {"TCP": Bounds(self.give_up_s, sends_s + self.give_up_s + looks)}
            ends_s = self.user_timeout_s + self.user_timeout_late_s
            return {"TCP_USER_TIMEOUT": Bounds(ends_s, sends_s + ends_s + looks)}
        if self.keepalive is None:
            return {}
        idle_s, probe_s, probes = self.keepalive.idle, self.keepalive.interval, self.keepalive.count
        if self.user_timeout_s is not None:
            probes = max(1, math.ceil((self.user_timeout_s - idle_s) / probe_s))
        age_s = min(idle_s, idle_s if self.sign_of_life_s is None else self.sign_of_life_s)
        ends_s = idle_s + probes * probe_s
        return {"TCP keepalive": Bounds(ends_s - age_s, ends_s + looks)}

    @property
    def detection(self) -> Bounds | None:
        """The first of all layers; None: no connection ever ends by itself, or it is not known when."""
        layers = self.layers.values()
        if not layers:
            return None
        return Bounds(min(one.lo_s for one in layers), min(one.hi_s for one in layers))

    @property
    def unfreezing(self) -> bool:
        """Whether a layer sees a client that is frozen while its kernel acknowledges."""
        return bool(self.layers.keys() & {"heartbeat", "idle limit"})

    @property
    def record_ends(self) -> Bounds | None:
        """From a silent death to the end of the status record by its TTL alone; None: it never ends so."""
        ttl_s, age_s = self.status_ttl_s, self.sign_of_life_s
        if ttl_s is None or not self.records_expire or self.refreshed == "by_the_keepalive":
            return None
        if self.refreshed == "never" or age_s is None:
            return Bounds(0.0, ttl_s)
        old_s = age_s if self.refreshed == "at_each_frame" else ttl_s / 2 + age_s
        return Bounds(max(0.0, ttl_s - old_s), ttl_s)

    @property
    def refresh_needs_s(self) -> float | None:
        """A TTL must be above this, or it ends between two refreshes of a healthy client."""
        if self.sign_of_life_s is None:
            return None
        # Refreshed when half of it is gone, so two intervals must fit.
        return self.sign_of_life_s * (2 if self.refreshed == "when_half_gone" else 1)

    @property
    def jitter_s(self) -> float:
        """By how much one round trip may differ from the next, of nearly all, seconds."""
        if self.network is None:
            return 0.0
        low, high = self.network.round_trip.quantile([1 - _ALMOST_ALL, _ALMOST_ALL])
        return float(high - low)

    def gap_s(self, box: IdleTimerProfile) -> float | None:
        """Longest time without what restarts a box's timer on a healthy, quiet connection; None: for ever."""
        to_gateway, to_client = (
            _longest_gap_s(way) for way in (self.traffic.to_gateway, self.traffic.to_client)
        )
        beats_s = None if box.counts == "data" and self.protocol_ping else self.interval_s
        if beats_s is not None and self.network is not None:
            near = box.at == ("gateway" if self.beats_from == "gateway" else "client")
            if near and box.counts in (
                "any",
                "data",
            ):  # the answer passes the box a round trip after the ping
                beats_s -= min(beats_s, float(self.network.round_trip.quantile(1 - _ALMOST_ALL)))
            else:
                beats_s += self.jitter_s / 2
        match box.counts:
            case "to_gateway":
                return _shorter(beats_s, to_gateway)
            case "to_client":
                return _shorter(beats_s, to_client)
        return _shorter(_shorter(beats_s, to_gateway), to_client)


def _shorter(one_s: float | None, other_s: float | None) -> float | None:
    return min((s for s in (one_s, other_s) if s is not None), default=None)


def _longest_gap_s(way: TrafficOneWay | None) -> float | None:
    return None if way is None else float(way.every.quantile(_ALMOST_ALL))


def _by_theory(scenario: Scenario) -> tuple[Bounds | None, str]:
    """The bounds of a detector that learns, as theory's law of a host crash has them; or why there are none."""
    at = Distribution(uniform=Uniform(low=scenario.ramp, high=2 * scenario.ramp))
    crash = HostCrash(kind="host_crash", share=1.0, at=at)
    alone = scenario.model_copy(
        update={
            "faults": (crash,),
            "incidents": (),
            "liveness": scenario.liveness.model_copy(update={"session_timeout": None}),
        }
    )
    (found,) = (one for one in predict(alone) if one.milestone == "suspected")
    if found.law is None:
        return None, f"detector {scenario.detector.kind}: {found.note}"
    return Bounds(round(found.law.lo_s, 3), round(found.law.hi_s, 3)), ""


@dataclass(frozen=True, slots=True)
class Extras:
    """What a profile or a file does not say; None leaves the setting as it is. Fields as in `Setting`."""

    timed_by_page: bool | None = None
    answers_checked: bool | None = None
    lease_s: float | None = None
    promise_s: float | None = None
    close_wait_s: float | None = None
    expected_sessions: int | None = None
    network: Network | None = None

    def applied_to(self, setting: Setting) -> Setting:
        """The setting with what is said here."""
        said = {key: getattr(self, key) for key in self.__slots__}
        return replace(setting, **{key: value for key, value in said.items() if value is not None})


def boxes_of_scenario(scenario: Scenario) -> tuple[IdleTimerProfile, ...]:
    """The boxes that a scenario puts before every client; those of a fault are an experiment on some."""
    network, nat, boxes = scenario.network, scenario.network.nat, []
    if nat is not None:
        boxes.append(
            IdleTimerProfile(
                name="nat",
                title="the scenario's network.nat",
                idle_timeout=nat.idle_timeout,
                expiry=nat.expiry,
                counts=nat.counts,
                at=nat.at,
                source=scenario.name,
                status=(Status.ASSUMED,),
            )
        )
    if network.max_age is not None:
        boxes.append(
            IdleTimerProfile(
                name="max-age",
                title="the scenario's network.max_age",
                lifetime=network.max_age,
                expiry="close",
                source=scenario.name,
                status=(Status.ASSUMED,),
            )
        )
    return tuple(boxes)
