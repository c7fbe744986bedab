"""What was heard from a server, and what its heartbeat must be to have behaved so. Pure.

From connections that each did something else (answered all, answered nothing, beat by themselves) to a `Heartbeat` of a
target file and to the law that follows; and whether revivals contradict that law.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from harness.policy.profiles import (
    HeartbeatProfile,
    IdleLimit,
    Never,
    NextTick,
    PingDeadline,
    SendOnly,
    Status,
    Unknown,
)
from scenarios.target import Heartbeat

__all__ = ["Ended", "Heard", "Role", "contradiction", "heartbeat_of", "profile_of", "rounded_s"]

Role = Literal["healthy", "silent", "no_answers", "no_pongs", "no_beats", "beats_alone", "stopped"]
"""What a connection did: see `listen.py`."""

Numbers = NDArray[np.float64]
_GRAIN_S = 0.03  # two event loops and a kernel between a decision and its sight
_SHARE = 0.02  # of an interval: clocks that drift, timers that are late
_LEVEL = 0.001  # a law that is right is contradicted as rarely
_BROAD = 0.15  # of an interval: a deadline that varies by more is none


@dataclass(frozen=True, slots=True)
class Ended:
    """How one connection ended; seconds.

    Attributes:
        life_s: from its beginning.
        unanswered_s: from the first heartbeat of the server that it did not answer; None: there was none.
        unheard_s: from the last thing that it sent.
        socket_lag_s: from a close frame that it did not answer to the end of TCP; None: not seen.
        socket_open_s: so long after it TCP had not ended yet, when nobody looked any more; None: it had.
    """

    life_s: float
    unanswered_s: float | None
    unheard_s: float
    how: str
    code: int | None
    socket_lag_s: float | None
    socket_open_s: float | None = None


@dataclass(slots=True)
class Heard:
    """What was heard; of each role how many there were, and who of them ended.

    Attributes:
        interval_s: gaps between heartbeats of the server, on connections that answered them.
        first_s: from a connection's beginning to the first.
        kind: ping (of the protocol), heartbeat (of the dialect), message (a text that nobody answers), none.
        beat_s: how often clients beat by themselves; None: they do not.
        frames_s: frames a second of a healthy client; ``bytes_s`` of its WebSocket.
    """

    watched_s: float = 0.0
    beat_s: float | None = None
    kind: Literal["ping", "heartbeat", "message", "none"] = "none"
    interval_s: list[float] = field(default_factory=list)
    first_s: list[float] = field(default_factory=list)
    clients: Counter[str] = field(default_factory=Counter)
    ended: dict[str, list[Ended]] = field(default_factory=dict)
    round_trip_s: float = 0.0
    longest_trip_s: float = 0.0
    frames_s: float = 0.0
    bytes_s: float = 0.0
    samples: list[str] = field(default_factory=list)

    def all_ended(self, role: Role) -> bool:
        """Whether there were such connections, and none of them lives."""
        return 0 < self.clients[role] <= len(self.ended.get(role, ()))

    def none_ended(self, role: Role) -> bool:
        """Whether there were such connections, and all of them live."""
        return self.clients[role] > 0 and not self.ended.get(role)

    @property
    def period_s(self) -> float | None:
        """The median gap between heartbeats of the server; None: it sends none, or too few were seen."""
        return float(np.median(self.interval_s)) if self.interval_s else None

    @property
    def tolerance_s(self) -> float:
        """How far off times may be: a canary's longest round trip stands for the lag of both loops."""
        return max(_GRAIN_S, _SHARE * (self.period_s or self.beat_s or 0.0), self.longest_trip_s)

    @property
    def needs_answers(self) -> bool:
        """Whether a client that answers nothing is ended, and one that answers is not."""
        beside = "beats_alone" if self.clients["beats_alone"] else "silent"
        return self.none_ended("healthy") and bool(self.ended.get(beside))

    @property
    def needs_beats(self) -> bool:
        """Whether a client that answers all, and sends nothing by itself, is ended."""
        return self.none_ended("healthy") and bool(self.ended.get("no_beats"))

    @property
    def silent_ends(self) -> Sequence[Ended]:
        """Ends of clients that had fallen silent."""
        return [one for role in ("stopped", "silent") for one in self.ended.get(role, ())]


def rounded_s(time_s: float, off_s: float | None = None) -> float:
    """The roundest number that a measured time may be: it is off by at most ``off_s``, or half a per cent.

    Without ``off_s`` by 2 %, within 5 and 30 ms: it is a median.
    """
    if off_s is None:
        off_s = max(0.005, min(_GRAIN_S, _SHARE * time_s))
    for step_s in (5.0, 1.0, 0.5, 0.1, 0.05):
        near_s = round(time_s / step_s) * step_s
        if near_s > 0 and abs(near_s - time_s) <= max(off_s, 0.005 * time_s):
            return round(near_s, 6)
    return round(time_s, 3)


def heartbeat_of(
    heard: Heard, moments_s: Sequence[float] = (), gone: Sequence[bool] = ()
) -> tuple[Heartbeat, str]:
    """Return the heartbeat that a server must have, and a sentence where its law cannot be told from what was heard.

    A deadline that is measured from the first unanswered heartbeat is τ, or k intervals; one that varies has no model
    here. Without a need for answers or beats a server that sends something leaves a silent client to TCP.

    Args:
        heard: by listening.
        moments_s, gone: by revival, see `contradiction`: a limit that is looked at now and then needs them.
    """
    period_s, grain_s = heard.period_s, heard.tolerance_s
    every_s = None if period_s is None else rounded_s(period_s)
    lags = [one.socket_lag_s for one in heard.silent_ends if one.socket_lag_s is not None]
    common: dict[str, Any] = {"status": "measured"}
    if lags and (lag_s := float(np.median(lags))) > 2 * grain_s:
        common["socket_lag"] = rounded_s(lag_s, _GRAIN_S)
    if every_s is not None and heard.first_s and heard.kind != "message":
        anchored = max(abs(first_s - every_s) for first_s in heard.first_s) <= 2 * grain_s
        common["first"] = "interval" if anchored else "random"
    if heard.needs_answers and heard.needs_beats:
        return Heartbeat(model="unknown", **common), "it wants both answers and beats of the client's own"
    if heard.needs_beats:
        return _idle(heard, common, np.asarray(moments_s, dtype=float), np.asarray(gone, dtype=bool))
    if heard.needs_answers and every_s is not None:
        return _deadline(heard, every_s, common)
    if heard.ended.get("silent"):
        return Heartbeat(model="unknown", **common), "silent clients are ended, and no heartbeat was heard"
    if every_s is None:
        return Heartbeat(model="never", **common), ""
    return Heartbeat(model="tcp_only", interval=every_s, **common), ""


def _deadline(heard: Heard, every_s: float, common: Mapping[str, Any]) -> tuple[Heartbeat, str]:
    grain_s = heard.tolerance_s
    delays = [one.unanswered_s for one in heard.silent_ends if one.unanswered_s is not None]
    if not delays:
        return Heartbeat(model="unknown", **common), "clients were ended before they heard a heartbeat"
    low_s, high_s = min(delays), max(delays)
    if high_s - low_s > max(4 * grain_s, _BROAD * every_s):
        sentence = f"the deadline varies: {low_s:.2f} to {high_s:.2f} s after an unanswered heartbeat"
        return Heartbeat(model="unknown", **common), sentence
    delay_s = float(np.median(delays))
    ticks = round(delay_s / every_s)
    if ticks and abs(delay_s - ticks * every_s) <= 2 * grain_s:
        return Heartbeat(model="next_tick", interval=every_s, misses=ticks, **common), ""
    misses = math.floor(delay_s / every_s) + 1
    timeout_s = rounded_s(delay_s - (misses - 1) * every_s)
    found = Heartbeat(model="ping_deadline", interval=every_s, timeout=timeout_s, misses=misses, **common)
    return found, ""


def _idle(
    heard: Heard, common: Mapping[str, Any], moments: Numbers, gone: NDArray[np.bool_]
) -> tuple[Heartbeat, str]:
    assert heard.beat_s is not None
    delays = np.array([one.unheard_s for one in heard.silent_ends])
    grain_s = heard.tolerance_s
    limit_s, look_s = float(delays.min()), 0.0
    if np.ptp(delays) > 4 * grain_s:
        limit_s, look_s = _fitted(delays, heard.beat_s, moments, gone, grain_s)
    times = {"interval": rounded_s(heard.beat_s), "timeout": rounded_s(limit_s, max(_GRAIN_S, 0.03 * look_s))}
    if look_s:
        times["look_every"] = rounded_s(look_s, max(_GRAIN_S, 0.03 * look_s))
    return Heartbeat(model="idle_limit", **times, **common), ""


def _fitted(
    delays: Numbers, beat_s: float, moments: Numbers, gone: NDArray[np.bool_], grain_s: float
) -> tuple[float, float]:
    """The idle limit, and how often it is looked at, under which all that was seen is likeliest.

    Args:
        delays: shape (m,), from the last word of a client to its end: uniform on [limit, limit + look].
        beat_s: the age of a last beat is uniform on [0, beat_s] when a client falls silent.
        moments: shape (n,), when silent clients were revived; ``gone``: whether they were given up.
        grain_s: how far off a delay may be.
    """
    limit, look = np.meshgrid(
        np.linspace(0.4 * delays.min(), delays.min() + grain_s, 121),
        np.linspace(grain_s, 2.5 * delays.max(), 160),
        indexing="ij",
    )
    within = (limit - grain_s <= delays.min()) & (limit + look + grain_s >= delays.max())
    likely = np.where(within, -len(delays) * np.log(look), -np.inf)
    for moment_s, is_gone in zip(moments, gone, strict=True):
        late = moment_s - (limit - beat_s)  # a sum of two uniforms is at most that
        ramp = [np.maximum(late - x, 0.0) ** 2 for x in (0.0, beat_s, look, beat_s + look)]
        share = np.clip((ramp[0] - ramp[1] - ramp[2] + ramp[3]) / (2 * beat_s * look), 1e-6, 1 - 1e-6)
        likely += np.log(share if is_gone else 1 - share)
    at = np.unravel_index(int(np.argmax(likely)), likely.shape)
    return float(limit[at]), float(look[at])


def profile_of(heartbeat: Heartbeat, heard: Heard, name: str) -> HeartbeatProfile:
    """The same as a profile: what `lint` reads, and whose law is known."""
    detector: PingDeadline | NextTick | IdleLimit | SendOnly | Never | Unknown
    every_s = heartbeat.interval or 1.0
    match heartbeat.model:
        case "ping_deadline":
            assert heartbeat.timeout is not None
            detector = PingDeadline(
                model="ping_deadline",
                interval=every_s,
                timeout=heartbeat.timeout,
                max_failures=heartbeat.misses,
            )
        case "next_tick":
            detector = NextTick(model="next_tick", interval=every_s, max_failures=heartbeat.misses)
        case "idle_limit":
            assert heartbeat.timeout is not None
            sweep_s = heartbeat.look_every or 0.0
            detector = IdleLimit(model="idle_limit", beat=every_s, limit=heartbeat.timeout, sweep=sweep_s)
        case "tcp_only":
            detector = SendOnly(model="send_only", interval=every_s)
        case "never":
            detector = Never(model="never")
        case _:
            detector = Unknown(
                model="unknown", interval=heard.period_s or heard.beat_s or 1.0, missing="see the probe"
            )
    return HeartbeatProfile(
        name=name,
        title=name,
        beats_from="client" if heartbeat.client_beats else "server",
        level="protocol" if heard.kind == "ping" else "application",
        detector=detector,
        socket_lag=heartbeat.socket_lag,
        source="flatline probe",
        status=(Status.MEASURED,),
    )


def contradiction(
    profile: HeartbeatProfile, moments_s: Sequence[float], gone: Sequence[bool], slack_s: float
) -> str:
    """Return a sentence where revivals contradict a profile's law; empty: they do not, or it claims nothing.

    Exact: how many were gone is a sum of independent bits with F(moment ± slack) as probabilities.

    Args:
        profile: whose law.
        moments_s: shape (n,), how long each client had been silent.
        gone: shape (n,), whether the server had given it up.
        slack_s: how far off each moment may be.
    """
    law = profile.law
    if law is None or not len(moments_s):
        if isinstance(profile.detector, Never) and any(gone):
            return f"it sends nothing that it watches, and {sum(gone)} of {len(gone)} silent clients were given up"
        return ""
    moments = np.asarray(moments_s)
    bits = np.asarray(gone, dtype=bool)
    late, early = law.before(moments - slack_s), law.cdf(moments + slack_s)
    if (too_early := bits & (early <= 0)).any():
        first_s = moments[too_early].min()
        return f"{too_early.sum()} clients were given up by {first_s:.2f} s, its law begins at {law.lo_s:g} s"
    if (too_late := ~bits & (late >= 1)).any():
        last_s = moments[too_late].max()
        return (
            f"{too_late.sum()} clients were still held after {last_s:.2f} s, its law ends at {law.hi_s:g} s"
        )
    count = int(bits.sum())
    at_most = float(_sums(late)[: count + 1].sum())  # if each had been gone as rarely as may be
    at_least = float(_sums(early)[count:].sum())
    if min(at_most, at_least) < _LEVEL / 2:
        return (
            f"{count} of {len(bits)} were given up where its law says {late.sum():.0f} to {early.sum():.0f}"
        )
    return ""


def _sums(probabilities: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The distribution of the sum of independent bits (Poisson binomial), shape (n + 1,)."""
    found = np.ones(1)
    for p in probabilities:
        found = np.convolve(found, (1 - p, p))
    return found
