"""Built-in profiles: what products do by default, which timers lie on the way, which networks to tune for.

From `data/profiles.yaml` to checked, frozen records. A heartbeat profile names a detector model and its parameters, in
seconds, so that its detection latency follows from theory; what cannot be derived says what is missing. Measures
nothing and judges nothing (`lint` does).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Annotated, ClassVar, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field

from harness.theory.detectors import idle_limit, miss_at_next_tick
from harness.theory.law import Law
from harness.theory.tcp import tcp_give_up_s
from reference_server.durations import Duration, PositiveDuration, format_duration
from reference_server.errors import FlatlineError, unknown_name
from scenarios.distributions import Law as LawField
from scenarios.network import Nat, Network, Outages

__all__ = [
    "Claim",
    "Detector",
    "HeartbeatProfile",
    "IdleLimit",
    "IdleTimerProfile",
    "NetworkProfile",
    "Never",
    "NextTick",
    "PingDeadline",
    "Profile",
    "Profiles",
    "Record",
    "SendOnly",
    "Status",
    "Unknown",
    "UnknownProfileError",
    "heartbeat_profile",
    "idle_timer_profile",
    "load_profiles",
    "middleboxes_of",
    "network_profile",
]


class Record(BaseModel):
    """A frozen record of a data file; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class _Pings(Record):
    interval: PositiveDuration

    @property
    def traffic_gap_s(self) -> float:
        """Longest time without a packet on a healthy, otherwise idle connection, seconds."""
        return self.interval


class PingDeadline(_Pings):
    """The server pings and waits; `sweep` and `close_wait` come on top. Seconds."""

    model: Literal["ping_deadline"]
    timeout: PositiveDuration
    max_failures: Annotated[int, Field(ge=1)] = 1
    retry_interval: PositiveDuration | None = None
    sweep: Annotated[Duration, Field(description="the deadline, or the silence, is looked at this often")] = (
        0.0
    )
    round_down: Annotated[
        Duration,
        Field(description="the deadline is cut to a multiple of this, so it comes up to this much sooner"),
    ] = 0.0
    close_wait: Annotated[Duration, Field(description="from the decision to the handler's notice")] = 0.0

    def law(self) -> Law:
        """T_D of a silent peer: U + (k−1)R + τ + Uniform(0, sweep) − Uniform(0, round_down) + close_wait."""
        patience_s = (self.max_failures - 1) * (self.retry_interval or self.interval) + self.timeout
        law = Law.uniform(0.0, self.interval).shifted(patience_s + self.close_wait)
        law = law.plus(Law.uniform(0.0, self.sweep))
        return (
            law.plus(Law.uniform(0.0, self.round_down).shifted(-self.round_down)) if self.round_down else law
        )


class IdleLimit(Record):
    """One side beats, or answers pings, every `beat`; the server allows `limit` without. Seconds."""

    model: Literal["idle_limit"]
    beat: PositiveDuration
    limit: PositiveDuration
    sweep: Duration = 0.0
    round_up: Annotated[
        Duration,
        Field(description="times are whole multiples of this, so the limit ends up to this much later"),
    ] = 0.0

    @property
    def traffic_gap_s(self) -> float:
        """Longest time without a packet on a healthy, otherwise idle connection, seconds."""
        return self.beat

    def law(self) -> Law:
        """T_D of a silent peer: limit − U + Uniform(0, sweep) + Uniform(0, round_up)."""
        return idle_limit(self.beat, self.limit, self.sweep).plus(Law.uniform(0.0, self.round_up))


class NextTick(_Pings):
    """A ping every `interval`; a missing answer is noticed when the next is due. Seconds."""

    model: Literal["next_tick"]
    max_failures: Annotated[int, Field(ge=1)] = 1

    def law(self) -> Law:
        """T_D of a silent peer: U + kT."""
        return miss_at_next_tick(self.interval, self.max_failures)


class SendOnly(_Pings):
    """A ping every `interval` whose answer nobody waits for: TCP notices. Seconds."""

    model: Literal["send_only"]

    def law(self) -> Law:
        """T_D of a silent peer: U + TCP's give-up at Linux' defaults."""
        return Law.uniform(0.0, self.interval).shifted(tcp_give_up_s())


class Never(Record):
    """Nothing is sent, so nothing notices a silent peer."""

    model: Literal["never"]
    traffic_gap_s: ClassVar[None] = None

    def law(self) -> None:
        """It never happens."""
        return None


class Unknown(_Pings):
    """Too little is published to say when a silent peer is noticed."""

    model: Literal["unknown"]
    missing: str

    def law(self) -> None:
        """Nothing follows from what is known."""
        return None


Detector = Annotated[
    PingDeadline | IdleLimit | NextTick | SendOnly | Never | Unknown, Field(discriminator="model")
]


_DATA = Path(__file__).parents[1] / "data" / "profiles.yaml"


class UnknownProfileError(FlatlineError):
    """No profile of that name and kind; the message lists those that there are."""


class Status(StrEnum):
    """How far a number can be believed."""

    SEEN = "seen"  # read in the project's own source or documentation
    MEASURED = "measured"  # run here, the tests run it again
    SECOND_HAND = "second-hand"  # quoted by others
    RECALLED = "recalled"  # unverified
    DERIVED = "derived"  # follows from what was seen
    CONFLICTING = "conflicting"  # the sources disagree
    ASSUMED = "assumed"  # nobody measured it: change it for your network


class Claim(Record):
    """Detection latency of a silent peer as published or worked out. Seconds."""

    lo: Duration
    hi: PositiveDuration
    mean: PositiveDuration


class _Profile(Record, ABC):
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
    title: str
    note: str = ""

    @property
    @abstractmethod
    def row(self) -> tuple[str, str, str, str, str]:
        """For a table: name, what it is, its numbers, status, source with the note."""


class HeartbeatProfile(_Profile):
    """What a product does by default to notice a dead peer."""

    kind: Literal["heartbeat"] = "heartbeat"
    beats_from: Annotated[
        Literal["server", "client"], Field(description="who sends first; the other answers or not")
    ]
    level: Annotated[
        Literal["protocol", "application"],
        Field(description="a browser answers protocol pings for a frozen page"),
    ]
    timed_by_page: Annotated[
        bool, Field(description="a timer in a web page sends the beats; browsers throttle it")
    ] = False
    detector: Detector
    socket_lag: Annotated[
        float,
        Field(description="from the application's notice to the socket's end, seconds; below 0: before it"),
    ] = 0.0
    record_ttl: Annotated[
        PositiveDuration | None, Field(description="life of its record in a store when its node dies")
    ] = None
    claimed: Claim | None = None
    source: str
    status: tuple[Status, ...]

    @property
    def law(self) -> Law | None:
        """The law of T_D that theory gives for its parameters; None where it cannot be derived."""
        return self.detector.law()

    @property
    def row(self) -> tuple[str, str, str, str, str]:
        """For a table: name, title, parameters and range, status, source with the note."""
        told = self.detector.model_dump(mode="json", exclude_defaults=True, exclude={"model"})
        numbers = ", ".join(f"{key} {value}" for key, value in told.items() if key != "missing")
        law = self.law
        if isinstance(self.detector, Never):
            numbers, found = "no heartbeat", "never"
        elif law is None:
            found = f"unknown: {told.get('missing', '')}"
        else:
            found = f"{law.lo_s:g}–{law.hi_s:g} ({law.mean_s:g}) s"
        if self.socket_lag:
            found += f"; the socket ends {abs(self.socket_lag):g} s {'later' if self.socket_lag > 0 else 'earlier'}"
        if self.record_ttl is not None:
            found += f"; records of a dead node stay for {format_duration(self.record_ttl)}"
        return self.name, self.title, f"{numbers}: {found}", _joined(self.status), _cited(self)


class Configurable(Record):
    """The values that an idle timer can be set to. Seconds."""

    low: PositiveDuration
    high: PositiveDuration


class IdleTimerProfile(_Profile):
    """A box on the way that ends or forgets a connection by its own clock."""

    kind: Literal["idle_timer"] = "idle_timer"
    idle_timeout: Annotated[
        PositiveDuration | None, Field(description="no packet for this long; null: no such limit")
    ] = None
    lifetime: Annotated[PositiveDuration | None, Field(description="ended at this age, idle or not")] = None
    expiry: Annotated[
        Literal["drop", "reset", "close"],
        Field(description="the next packet meets silence or RST; or both sides are closed at once"),
    ]
    expiry_status: Annotated[Status, Field(description="how far `expiry` can be believed")] = Status.ASSUMED
    counts: Annotated[
        Literal["any", "data", "to_gateway", "to_client"],
        Field(description="what restarts its idle timer, as in a scenario's `network.nat`"),
    ] = "any"
    at: Annotated[
        Literal["client", "gateway"],
        Field(description="the end of the path where it stands; unknown: client"),
    ] = "client"
    configurable: Configurable | None = None
    transport: Literal["tcp", "udp"] = "tcp"
    source: str
    status: tuple[Status, ...]

    @property
    def row(self) -> tuple[str, str, str, str, str]:
        """For a table: name, title, limits, status, source with the note."""
        limits = []
        if self.idle_timeout is not None:
            limits.append(f"idle {format_duration(self.idle_timeout)}")
        if self.lifetime is not None:
            limits.append(f"lifetime {format_duration(self.lifetime)}")
        if not limits:
            return self.name, self.title, "no limit by default", _joined(self.status), _cited(self)
        numbers = f"{', '.join(limits)}: {self.expiry} ({self.expiry_status})"
        return self.name, self.title, numbers, _joined(self.status), _cited(self)


class NetworkProfile(_Profile):
    """A network to tune for. Its numbers are assumptions: replace them with what you measure."""

    kind: Literal["network"] = "network"
    aliases: Annotated[tuple[str, ...], Field(description="shorter names for it")] = ()
    round_trip: LawField
    outages: Outages | None = None
    idle_timer: Nat | None = None
    middleboxes: tuple[str, ...] = ()
    assumptions: Annotated[tuple[str, ...], Field(min_length=1)]
    source: str = "the assumptions below"
    status: tuple[Status, ...] = (Status.ASSUMED,)

    @property
    def network(self) -> Network:
        """The way as a scenario describes it (its idle timer is a fault there, not part of the way)."""
        return Network(round_trip=self.round_trip, outages=self.outages)

    @property
    def row(self) -> tuple[str, str, str, str, str]:
        """For a table: name, title, numbers, status, assumptions."""
        trip_s = float(self.round_trip.quantile(0.5))
        numbers = [f"median round trip {format_duration(round(trip_s, 6))}"]
        if self.outages is not None:
            numbers.append(
                f"an outage of {format_duration(self.outages.length.mean_s)} on average "
                f"every {format_duration(self.outages.every)}"
            )
        if self.idle_timer is not None:
            numbers.append(f"idle limit {format_duration(self.idle_timer.idle_timeout)}")
        title = f"{self.title} (also: {', '.join(self.aliases)})"
        return (self.name, title, ", ".join(numbers), _joined(self.status), "; ".join(self.assumptions))


Profile = HeartbeatProfile | IdleTimerProfile | NetworkProfile


class Profiles(Record):
    """Every profile that ships, in the file's order."""

    heartbeats: tuple[HeartbeatProfile, ...]
    idle_timers: tuple[IdleTimerProfile, ...]
    networks: tuple[NetworkProfile, ...]

    @property
    def all(self) -> tuple[Profile, ...]:
        """All kinds, one after the other."""
        return (*self.heartbeats, *self.idle_timers, *self.networks)


@cache
def load_profiles() -> Profiles:
    """Read the profiles that ship with flatline; the same frozen object every time."""
    return Profiles.model_validate(yaml.safe_load(_DATA.read_text()))


def heartbeat_profile(name: str) -> HeartbeatProfile:
    """Find a product's heartbeat by name.

    Raises:
        UnknownProfileError: there is none.
    """
    return _find(name, load_profiles().heartbeats, "heartbeat")


def idle_timer_profile(name: str) -> IdleTimerProfile:
    """Find a middlebox by name.

    Raises:
        UnknownProfileError: there is none.
    """
    return _find(name, load_profiles().idle_timers, "idle timer")


def network_profile(name: str) -> NetworkProfile:
    """Find a network by name.

    Raises:
        UnknownProfileError: there is none.
    """
    return _find(name, load_profiles().networks, "network")


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
        counts=network.idle_timer.counts,
        at=network.idle_timer.at,
        source=network.source,
        status=(Status.ASSUMED,),
    )
    return (*named, own)


_P = TypeVar("_P", HeartbeatProfile, IdleTimerProfile, NetworkProfile)


def _find(name: str, among: tuple[_P, ...], kind: str) -> _P:
    named: dict[str, _P] = {}
    for profile in among:
        aliases: tuple[str, ...] = getattr(profile, "aliases", ())
        named |= dict.fromkeys((profile.name, *aliases), profile)
    if name not in named:
        raise UnknownProfileError(unknown_name(f"no {kind} profile {name!r}", name, named))
    return named[name]


def _joined(status: tuple[Status, ...]) -> str:
    return ", ".join(status)


def _cited(profile: HeartbeatProfile | IdleTimerProfile) -> str:
    return f"{profile.source}; {profile.note}" if profile.note else profile.source
