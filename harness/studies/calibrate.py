"""Calibrate the model by a real run: loop time of heartbeats and handshakes, stalls of the loop, round trips.

From a run directory to estimates, each with how well it fits, and to a YAML of overrides that a scenario takes
(`gateway:` and `network:`). All estimates are real seconds of the machine that ran, gateway process only.

    processor time of the gateway in each sample  =  base + handshakes · h + heartbeats · b        (least squares)
    largest lag of each half second               ──►  log-normal law; what is long is a stall
    heartbeat written ──► answered, one way ×2    ──►  log-normal law of the round trip

It does not tell the loop's own time from that of the process's other threads, and a machine that was busy with
the load generator too makes everything look slower than it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml
from scipy import optimize, stats

from harness.events.log import read_log
from harness.measure.health import round_trips_s
from harness.runs.directory import RunDir
from reference_server.durations import format_duration
from reference_server.errors import FlatlineError
from reference_server.events import Event, EventKind, Source
from scenarios.load import Problem, ScenarioError, replaced
from scenarios.read_yaml import read_yaml, read_yaml_text
from scenarios.schema import Scenario

__all__ = [
    "ANOTHER_MACHINE",
    "Calibration",
    "CannotCalibrate",
    "Fitted",
    "Service",
    "calibrate",
    "calibrated",
]

ANOTHER_MACHINE = Path(__file__).parents[1] / "data" / "calibration.yaml"
"""A calibration that comes along, with its source: for whoever has none."""

STALL_S = 0.05  # a lag from here on is a stall, not the loop's daily work
_ROLE = "gateway"
_FEWEST = 8  # samples for an estimate
FloatArray = npt.NDArray[np.float64]


class CannotCalibrate(FlatlineError):
    """The run's log does not hold what is needed."""


@dataclass(frozen=True, slots=True)
class Service:
    """A service time by least squares: seconds a piece, its standard error, how many pieces were seen."""

    seconds: float
    error: float
    pieces: int

    @property
    def is_known(self) -> bool:
        """Whether it differs from nothing by more than two standard errors."""
        return self.pieces > 0 and self.seconds > 2 * self.error


@dataclass(frozen=True, slots=True)
class Fitted:
    """A log-normal law of times: median (s), σ of the logarithm, and its Kolmogorov–Smirnov distance."""

    median_s: float
    sigma: float
    samples: int
    distance: float

    def law(self) -> dict[str, Any]:
        """As scenario files write it."""
        return {"lognormal": {"median": _written(self.median_s), "sigma": round(self.sigma, 4)}}


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a run says about the machine that ran it.

    ``base``: share of a processor that the gateway needs for nothing. ``r_squared``: of the regression. ``lag``
    and ``round_trip`` None: too few samples. ``stalls``: longest lag of each half second from 50 ms on.
    """

    run: str
    heartbeat: Service
    handshake: Service
    base: float
    r_squared: float
    samples: int
    lag: Fitted | None
    stalls: tuple[float, ...]
    watched_s: float
    round_trip: Fitted | None
    round_trip_by: str
    tls: bool = False

    def overrides(self) -> dict[str, Any]:
        """The keys of a scenario that this run knows better; what it does not know is left out."""
        gateway: dict[str, Any] = {}
        if self.heartbeat.is_known:
            gateway["heartbeat_service"] = _written(self.heartbeat.seconds)
        if self.handshake.is_known:
            gateway["handshake_service"] = _written(self.handshake.seconds)
        if len(self.stalls) >= _FEWEST:
            length = {"exponential": {"mean": _written(float(np.mean(self.stalls)))}}
            every_s = self.watched_s / len(self.stalls)
            gateway["stalls"] = {"every": _written(every_s), "length": length}
        found: dict[str, Any] = {"gateway": gateway} if gateway else {}
        if self.round_trip is not None:
            found["network"] = {"round_trip": self.round_trip.law()}
        if self.tls:  # its cost is in the service times: nobody is to add it again
            found["network"] = found.get("network", {}) | {"tls": True}
        return found

    def lines(self) -> list[str]:
        """The estimates and how good they are, in words."""
        found = [
            f"regression of processor time: {self.samples} samples, R² {self.r_squared:.2f}, "
            f"base {self.base:.2%} of a processor",
            _service_line("heartbeat", self.heartbeat),
            _service_line("handshake", self.handshake),
            _law_line("largest loop lag of half a second", self.lag),
            f"stalls from {STALL_S * 1000:g} ms on: {len(self.stalls)} in {self.watched_s:.0f} s",
        ]
        return [*found, _law_line(f"round trip ({self.round_trip_by})", self.round_trip)]

    def to_yaml(self) -> str:
        """The overrides as YAML, the estimates as comments above them."""
        comments = "".join(f"# {line}\n" for line in (f"calibrated by {self.run}", *self.lines()))
        return comments + yaml.safe_dump(self.overrides(), sort_keys=False)


def calibrate(run: RunDir) -> Calibration:
    """Estimate from a real run's logs.

    Raises:
        CannotCalibrate: no log of a real gateway, or too little of it.
    """
    if (steps := run.path / "steps").is_dir():
        raise CannotCalibrate(
            f"{run.path} holds the steps of a search, each of them a run; allowed: one, as of "
            f"`flatline runs --runs {steps}`, by --runs {steps}; or `flatline run capacity --real-only` first"
        )
    try:
        events = read_log(run.events).events
    except OSError as error:
        raise CannotCalibrate(f"{run.events}: {error.strerror}") from error
    mine = [event for event in events if event.source is not Source.SIMULATION]
    used = [e for e in mine if e.kind is EventKind.RESOURCES and e.detail["role"] == _ROLE]
    lags = np.array(
        [e.detail["max_lag_s"] for e in mine if e.kind is EventKind.LOOP_LAG and e.detail["role"] == _ROLE]
    )
    if len(used) < _FEWEST + 1 or len(lags) < _FEWEST:
        raise CannotCalibrate(
            f"{run.path}: {len(used)} samples of the gateway's processor time and {len(lags)} of its loop's lag; "
            f"more than {_FEWEST} of each are needed, from a real run"
        )
    trips, by = _round_trips(mine)
    heartbeat, handshake, base, r_squared, samples = _services(mine, used)
    return Calibration(
        run=run.path.name,
        heartbeat=heartbeat,
        handshake=handshake,
        base=base,
        r_squared=r_squared,
        samples=samples,
        lag=_fit(lags),
        stalls=tuple(lags[lags >= STALL_S].tolist()),
        watched_s=len(lags) * 0.5,
        round_trip=_fit(trips),
        round_trip_by=by,
        tls=any(e.detail.get("tls") for e in mine if e.kind is EventKind.CONNECTED),
    )


def calibrated(scenario: Scenario, overrides: Path) -> Scenario:
    """A scenario with the keys of a calibration file laid over its own, key by key.

    Raises:
        OSError: no such file.
        ScenarioError: the result is no scenario; every problem is in it.
    """
    return replaced(scenario, str(overrides), **_overrides(overrides))


def _overrides(path: Path) -> dict[str, Any]:
    try:
        found = read_yaml(read_yaml_text(path))
    except (yaml.YAMLError, ValueError) as error:
        raise ScenarioError(str(path), [Problem(None, "", f"not YAML: {error}")]) from error
    if not isinstance(found, dict):
        raise ScenarioError(str(path), [Problem(1, "", "overrides are a mapping of keys to values")])
    return found


def _services(events: list[Event], used: list[Event]) -> tuple[Service, Service, float, float, int]:
    """Regress processor time on what was done in it, between two samples each."""
    edges = np.array([event.time_s for event in used])
    width = np.diff(edges)
    busy = np.array([event.detail["cpu_percent"] / 100 for event in used[1:]]) * width
    handshakes, heartbeats = np.zeros_like(width), np.zeros_like(width)
    for event in events:
        # Lateness is reported at the end of the second that it is about.
        about_s = event.time_s - (0.5 if event.kind is EventKind.HEARTBEAT_LATENESS else 0.0)
        cell = int(np.searchsorted(edges, about_s)) - 1
        if event.source is not Source.GATEWAY or not 0 <= cell < len(width):
            continue
        if event.kind is EventKind.CONNECTED:
            handshakes[cell] += 1
        elif event.kind is EventKind.HEARTBEAT_LATENESS:
            heartbeats[cell] += event.detail["n"]
    design = np.column_stack([width, handshakes, heartbeats])
    # A column that never varies cannot be told from the base: it is left at nothing.
    found, _ = optimize.nnls(design, busy)
    left = busy - design @ found
    freedom = max(1, len(busy) - int(np.count_nonzero(design.any(axis=0))))
    spread = np.linalg.pinv(design.T @ design) * float(left @ left) / freedom
    errors = np.sqrt(np.maximum(np.diag(spread), 0.0))
    total = float(((busy - busy.mean()) ** 2).sum())
    r_squared = 1 - float(left @ left) / total if total > 0 else 0.0
    return (
        Service(float(found[2]), float(errors[2]), int(heartbeats.sum())),
        Service(float(found[1]), float(errors[1]), int(handshakes.sum())),
        float(found[0]),
        r_squared,
        len(busy),
    )


def _round_trips(events: list[Event]) -> tuple[FloatArray, str]:
    """Twice the way of traced heartbeats; where there are too few, the kernel's smoothed estimates."""
    trips = round_trips_s(events)
    if len(trips) >= _FEWEST:
        return trips, "twice the way of traced heartbeats"
    infos = (e.detail.get("tcp_info") or {} for e in events if e.kind is EventKind.SUSPECTED)
    kernel = [info["rtt_us"] / 1e6 for info in infos if info.get("rtt_us")]
    return np.array(kernel), "the kernel's smoothed estimate at each connection's end"


def _fit(times_s: FloatArray) -> Fitted | None:
    times_s = times_s[times_s > 0]
    if len(times_s) < _FEWEST:
        return None
    logs = np.log(times_s)
    median_s, sigma = float(np.exp(logs.mean())), max(float(logs.std(ddof=1)), 1e-3)
    distance = stats.kstest(times_s, stats.lognorm(sigma, scale=median_s).cdf).statistic
    return Fitted(median_s, sigma, len(times_s), float(distance))


def _written(seconds: float) -> str:
    return format_duration(float(f"{seconds:.4g}"))


def _service_line(name: str, service: Service) -> str:
    known = "" if service.is_known else "; not told from nothing, and left out"
    return (
        f"{name}: {service.seconds * 1e6:.1f} ± {service.error * 1e6:.1f} µs of the loop, "
        f"{service.pieces} seen{known}"
    )


def _law_line(name: str, law: Fitted | None) -> str:
    if law is None:
        return f"{name}: too few samples"
    return (
        f"{name}: median {law.median_s * 1000:.3g} ms, σ of the logarithm {law.sigma:.2f}, "
        f"{law.samples} samples, Kolmogorov–Smirnov distance {law.distance:.2f}"
    )
