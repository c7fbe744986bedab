"""May the numbers of a real run be believed? From loop lag, injections and detections to a verdict with reasons.

A load generator that lags looks like a slow gateway. So every loop's lateness was logged, and here it
becomes ε, the most by which a measured time can be off. Pure; a simulation has no loops and needs none of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from harness.events.history import History, Workers
from harness.events.incident_windows import incident_windows
from harness.measure.quality_of_service import curve_of
from reference_server.events import EventKind, Source
from scenarios.clock import RunClock
from scenarios.faults import PlannedFault, incident_of

__all__ = ["Epsilon", "Soundness", "assess", "silent_faults", "store_looks", "without_planned_stalls"]

MAX_EPSILON_S = 1.0  # scenario seconds
MAX_EPSILON_SHARE = 0.02  # of the median detection latency of silent faults
MAX_STORE_GAP_S = 1.0  # scenario seconds between two looks of the store watch at the faulted sessions
_SAMPLE_EVERY_S = 5.0  # scenario seconds after the last decision: the sample that tells of its time
_OURS, _FOREIGN = ("gateway", "generator"), ("canary", "observer", "generator")  # whose lag blurs a time
_GAPS = ("store_gap_s", "store_wait_s", "largest_gap_s")  # of a store sample
_SAMPLE_S = 0.6  # real seconds: a sample every 0.5, and some
_WITNESSES = (Source.CLIENT, Source.GATEWAY, Source.STORE)
_OF_A_TARGET = (Source.CLIENT, Source.OBSERVER)
# A canary is a client whose round trips stand for the lag of a server that is not ours; an observer reads such a
# server's output, and where it has nothing to read it logs no lag.
_LAGGED = {"canary": "a canary client waited up to {} ms for its answer"}


@dataclass(frozen=True, slots=True)
class Epsilon:
    """What ε is made of. Real seconds, but for the window. NaN: not known."""

    one_way_delay_s: float
    gateway_lag_s: float | None  # None: the server is not ours, and nobody sees its loop
    generator_lag_s: float
    grain_s: float
    between_samples_s: float
    window_from_s: float  # scenario seconds: the loops' lag is looked at in this window
    window_to_s: float
    clock_s: float | None = None  # workers of other hosts; None: all on one clock
    canary_s: float | None = None  # the longest round trip of a canary client; None: the server is ours
    observer_lag_s: float | None = None  # None: there was no observer, or it logged no lag

    @property
    def total_s(self) -> float:
        """One-way delay + largest lag + time between its samples + grain + clocks, real seconds. NaN: not known."""
        lags = (self.gateway_lag_s, self.canary_s, self.observer_lag_s, self.generator_lag_s)
        worst = np.max([lag for lag in lags if lag is not None])
        return float(
            self.one_way_delay_s + worst + self.between_samples_s + self.grain_s + (self.clock_s or 0.0)
        )


@dataclass(frozen=True, slots=True)
class Soundness:
    """Whether the run is sound, every reason why not, and ε in scenario seconds (NaN: not known)."""

    sound: bool
    reasons: tuple[str, ...]
    epsilon_s: float
    parts: Epsilon

    def as_dict(self) -> dict[str, Any]:
        """For summary.json."""
        return asdict(self)


def silent_faults(faults: Iterable[PlannedFault]) -> frozenset[str]:
    """Labels of the faults that nothing announces, so that only a timer can detect them.

    An orderly close, a crash (FIN, RST) and a NAT that answers with RST are seen at once; 2 % of next to
    nothing would be no bound.
    """
    return frozenset(fault.fault for fault in faults if fault.params.silent)


def without_planned_stalls(lag: pd.DataFrame, incidents: pd.DataFrame, clock: RunClock) -> pd.DataFrame:
    """Leave out the lag of a node that was stalled on purpose: it is what the run measures, not what blurs it.

    From the stall's beginning to the first sample that can have been taken wholly after it.

    Args:
        lag: lag.csv.
        incidents: incidents.csv of the real engine.
        clock: samples are taken every 0.5 s of real time.
    """
    stalls = incidents.loc[[incident_of(kind).stops_loop for kind in incidents["kind"]]]
    planned = np.zeros(len(lag), dtype=bool)
    for node, at_s, lasts_s in zip(stalls["node"], stalls["at_s"], stalls["lasts_s"], strict=True):
        over_s = at_s + lasts_s + clock.scenario_s(_SAMPLE_S) if lasts_s == lasts_s else float("inf")
        planned |= (lag["node"] == node).to_numpy() & lag["time_s"].between(at_s, over_s).to_numpy()
    return lag[~planned]


def store_looks(history: History) -> pd.DataFrame:
    """Return each sample's ``time_s`` and the longest time ``gap_s`` before it without a look at the store.

    Scenario seconds. Samples of a store that was away by plan, and the first after it, are left out.
    """
    away = [window for window in incident_windows(history) if incident_of(window.kind).side == "store"]
    spare_s = history.clock.scenario_s(_SAMPLE_S)
    rows = [
        (at_s, history.clock.scenario_s(max(gaps)))
        for event in history.of(EventKind.STORE_SAMPLE)
        if (gaps := [float(event.detail[key]) for key in _GAPS if key in event.detail])
        for at_s in [history.time_s(event)]
        if not any(w.start_s <= at_s <= min(w.end_s, history.end_s) + 3 * spare_s for w in away)
    ]
    return pd.DataFrame(rows, columns=["time_s", "gap_s"], dtype=float)


def assess(
    *,
    lag: pd.DataFrame,
    detections: pd.DataFrame,
    injections: pd.DataFrame,
    witnesses: Collection[Source],
    silent: Collection[str],
    clock: RunClock,
    one_way_delay_s: float,
    grain_s: float,
    between_samples_s: float,
    heartbeat_interval_s: float | None,
    ramp_s: float,
    workers: Workers | None = None,
    looks: pd.DataFrame | None = None,
    missing: Sequence[str] = (),
    decided_by: str = "suspected",
    foreign: bool = False,
) -> Soundness:
    """Judge one real run.

    ε = speedup × (one-way delay + largest loop lag of gateway and generator + time between two samples of it + grain).
    Lag counts within the measured window: from one heartbeat interval before the first fault took effect (the ping
    whose phase decides its latency) to the last decision (suspicion), or to the end of the log where some fault was
    never decided. Where none took effect: from the end of the ramp on. A sample of lag covers the time since that
    process's sample before.

    Unsound is a run

    * in which ε is above 1 s of scenario time, or above 2 % of the median detection latency of the silent
      fault that is detected fastest;
    * whose ε is not known, because gateway or generator logged no loop lag in the window;
    * in which a witness (client, gateway, store watch) left no log;
    * in which a worker died: its clients are lost, and what is left is not the run that was planned;
    * in which a fault took effect later than it was due by more than the same bound (1 s or the 2 %);
    * in which the store watch did not see the store for longer than `MAX_STORE_GAP_S` while faults were detected, an
      outage of the store that was planned aside;
    * whose evidence is not whole, see `evidence.py`.

    Args:
        lag: lag.csv (``max_lag_s`` real seconds, ``time_s`` scenario seconds).
        detections: detections of the real engine.
        injections: scheduled and actual time of each fault, scenario seconds.
        witnesses: who left a log.
        silent: labels of the silent faults, see :func:`silent_faults`.
        clock: of the run.
        one_way_delay_s: client to gateway, real seconds.
        grain_s: the shortest time the schedulers can tell apart, real seconds.
        between_samples_s: a lag that begins just after a sample is told so much too short, real seconds.
        heartbeat_interval_s: T, scenario seconds; None: no heartbeat.
        ramp_s: end of the ramp, scenario seconds.
        workers: generators on other hosts; None: there were none.
        looks: the store watch's samples: ``time_s`` and ``gap_s``, scenario seconds, without those of planned outages.
        missing: what the evidence lacks.
        decided_by: the first milestone that has a witness: it ends the window and gives the median.
        foreign: the server is not ours: the longest round trip of its canary clients stands for its loop's lag, or the
            observer's own lag, if that is longer.
    """
    start_s, end_s = _window(detections, injections, heartbeat_interval_s or 0.0, ramp_s, decided_by)
    lags = {
        role: lag_s
        for role in (_FOREIGN if foreign else _OURS)
        if not np.isnan(lag_s := _largest(lag, role, start_s, end_s)) or role != "observer"
    }
    parts = Epsilon(
        one_way_delay_s,
        lags.get("gateway"),
        lags["generator"],
        grain_s,
        between_samples_s,
        start_s,
        end_s,
        workers.clock_error_s if workers else None,
        lags.get("canary"),
        lags.get("observer"),
    )
    epsilon_s = clock.scenario_s(parts.total_s)
    median_s, fastest = _fastest_median(detections, silent, decided_by)
    bound_s = np.nanmin([MAX_EPSILON_S, MAX_EPSILON_SHARE * median_s])
    why = (
        f"{MAX_EPSILON_SHARE:.0%} of the median detection latency of {fastest} ({median_s:.1f} s)"
        if bound_s < MAX_EPSILON_S
        else "the most that is allowed"
    )
    reasons = [
        f"no log of the {witness.value if witness is not Source.STORE else 'store watch'}"
        for witness in (_OF_A_TARGET if foreign else _WITNESSES)
        if witness not in witnesses
    ]
    reasons += [
        f"worker {lost.worker} died, noticed {lost.at_s:.1f} s into the run (real time): "
        f"{lost.clients} clients were lost with it"
        for lost in (workers.lost if workers else ())
    ]
    reasons += [
        "no canary client was answered in the measured window: ε is not known"
        if role == "canary"
        else f"the {role} logged no loop lag in the measured window: ε is not known"
        for role in lags
        if np.isnan(lags[role])
    ]
    if looks is not None and len(looks):
        blind_s = float(looks.loc[looks["time_s"].between(start_s, end_s + _SAMPLE_EVERY_S), "gap_s"].max())
        if blind_s > MAX_STORE_GAP_S:
            reasons.append(
                f"the store watch did not see the store for {blind_s:.2f} s of scenario time at a stretch, above "
                f"{MAX_STORE_GAP_S:g} s: what it says of store_cleared, ghosts and gaps is that coarse"
            )
    if epsilon_s > bound_s:
        worst = max(lags, key=lambda role: lags[role])
        was = _LAGGED.get(worst, f"the {worst}'s loop was up to {{}} ms late").format(
            f"{lags[worst] * 1000:.0f}"
        )
        reasons.append(
            f"ε is {epsilon_s:.3f} s of scenario time, above {bound_s:.3f} s, {why}: {was} at "
            f"speedup {clock.speedup:g}; run with fewer clients, a lower speedup, or on an idler machine"
        )
    late = injections[injections["late_s"] > bound_s]
    if len(late):
        reasons.append(
            f"{len(late)} of {len(injections)} faults took effect up to {late['late_s'].max():.3f} s "
            f"late, above {bound_s:.3f} s, {why}: the generator could not keep up"
        )
    reasons += missing
    return Soundness(not reasons, tuple(reasons), float(epsilon_s), parts)


def _window(
    detections: pd.DataFrame,
    injections: pd.DataFrame,
    heartbeat_interval_s: float,
    ramp_s: float,
    decided_by: str,
) -> tuple[float, float]:
    if injections.empty:
        return ramp_s, float("inf")
    decided = detections[detections["milestone"] == decided_by]
    start_s = max(0.0, float(injections["injected_at_s"].min()) - heartbeat_interval_s)
    if (decided["outcome"] == "censored").any() or not (decided["outcome"] == "detected").any():
        return start_s, float("inf")
    seen = decided[decided["outcome"].isin(["detected", "recovered"])]
    return start_s, float((seen["injected_at_s"] + seen["duration_s"]).max())


def _largest(lag: pd.DataFrame, role: str, start_s: float, end_s: float) -> float:
    """Largest lag of all processes of a role in the window, real seconds; NaN without samples."""
    ours = lag[lag["role"] == role].sort_values("time_s", kind="stable")
    since_s = ours.groupby("pid")["time_s"].shift(fill_value=0.0)
    return float(ours.loc[(ours["time_s"] >= start_s) & (since_s <= end_s), "max_lag_s"].max())


def _fastest_median(detections: pd.DataFrame, silent: Collection[str], decided_by: str) -> tuple[float, str]:
    rows = detections[(detections["milestone"] == decided_by) & detections["fault"].isin(list(silent))]
    medians = []
    for fault, group in rows.groupby("fault"):
        curve = curve_of(group)
        median_s = curve.quantile(0.5).value_s if curve else float("nan")
        if not np.isnan(median_s):
            medians.append((median_s, str(fault)))
    return min(medians, default=(float("nan"), ""))
