"""A run directory made by hand: plausible tables, drawn from laws that are known, without any engine.

Everything that a report reads is here, and each part can be left out or bent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import pandas as pd

from harness.judge.agreement import AgreementVerdict, compare, judge
from harness.judge.observed import Slack
from harness.judge.verdict import RunVerdict, weigh
from harness.measure import quality_of_service as qos
from harness.measure.quality_of_service import incidence_by_cause
from reports.build import build_report
from reports.page import Headline
from reports.run_tables import FORMAT, RunTables, frame, load_run

RAMP_S, HORIZON_S = 60.0, 310.0
TOLERANCES = {"p50": 0.03, "p95": 0.03, "p99": 0.03}
CHAIN = ("suspected", "socket_closed", "store_cleared", "peers_notified")


@dataclass(frozen=True)
class Fault:
    """How many there are, which layer catches them, uniform on [lo, hi); `mass` of them are detected."""

    count: int
    cause: str
    lo_s: float
    hi_s: float
    mass: float = 1.0


DEMO: Mapping[str, Fault] = {
    "host_crash": Fault(448, "heartbeat", 70.0, 100.0),
    "process_crash": Fault(32, "tcp_fin", 0.0005, 0.0005),
    "frozen": Fault(32, "heartbeat", 70.0, 100.0),
    "nat_timeout": Fault(19, "heartbeat", 80.0, 80.0),
    "refresh": Fault(19, "close_frame", 0.0005, 0.0005),
    "network_cut": Fault(60, "heartbeat", 70.0, 100.0, mass=0.4),
}


@dataclass
class HandmadeRun:
    """Tables and JSON of one run; change what you like, then `write`."""

    tables: dict[str, pd.DataFrame]
    summary: dict[str, Any]
    provenance: dict[str, Any]
    left_out: set[str] = field(default_factory=set)

    def write(self, path: Path) -> Path:
        path.mkdir(parents=True, exist_ok=True)
        for name, table in self.tables.items():
            if name not in self.left_out:
                table.to_csv(path / f"{name}.csv", index=False)
        for name, content in (("summary", self.summary), ("run", self.provenance)):
            if name not in self.left_out:
                (path / f"{name}.json").write_bytes(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY))
        return path


class Built(NamedTuple):
    """A report, and what was decided for it."""

    headline: Headline
    exit_code: int
    agreement: AgreementVerdict
    html: Path
    markdown: Path


def slack_of(tables: RunTables) -> Slack:
    """How far off times may be, as the handmade summary says."""
    epsilon_s = tables.number("epsilon_s")
    others = (tables.number(key) or 0.0 for key in ("round_trip_s", "store_grain_s", "retry_s"))
    return Slack(math.nan if epsilon_s is None else epsilon_s, *others)


def judged(tables: RunTables) -> tuple[RunTables, AgreementVerdict, RunVerdict]:
    """The run with its agreement.csv, whether the engines agree, and the verdict."""
    comparisons = compare(tables, TOLERANCES, slack_of(tables), unsound=tables.sound is False)
    tables = replace(tables, frames={**tables.frames, "agreement": comparisons})
    agreement = judge(comparisons, sound=tables.sound)
    return tables, agreement, weigh(tables, agreement)


def build(path: Path, exit_code: int | None = None) -> Built:
    """Judge a run directory and write its report."""
    tables, agreement, verdict = judged(load_run(path))
    tables.table("agreement").to_csv(path / "agreement.csv", index=False)
    code = verdict.exit_code if exit_code is None else exit_code
    report = build_report(tables, verdict.headline, agreement.headline, code)
    return Built(verdict.headline, code, agreement, *report)


def handmade_run(
    faults: Mapping[str, Fault] = DEMO,
    *,
    engines: tuple[str, ...] = ("theory", "simulated", "real"),
    epsilon_s: float = 0.2,
    gateway_faults: Mapping[str, Fault] | None = None,
    seed: int = 7,
    for_report: bool = True,
) -> HandmadeRun:
    """Draw a run. ``gateway_faults`` replace the laws that the real engine follows, not those of theory.

    Without ``for_report`` there are only the tables that the engines' agreement is judged by.
    """
    rng = np.random.default_rng(seed)
    measured = [engine for engine in engines if engine != "theory"]
    detections = pd.concat(
        [frame("detections", [])]
        + [
            draw_detections(
                engine, (gateway_faults or faults) if engine == "real" else faults, epsilon_s, rng
            )
            for engine in measured
        ],
        ignore_index=True,
    )
    with_theory = "theory" in engines
    tables = {
        "detections": detections,
        "laws": laws_of(faults if with_theory else {}),
        "law_curves": curves_of(faults if with_theory else {}),
    }
    if not for_report:
        return HandmadeRun(tables, _summary(engines, epsilon_s), _provenance(engines))
    tables |= {
        "qos": qos.qos(detections),
        "breakdown": qos.breakdown(detections),
        "survival": qos.survival(detections),
        "detections_by_layer": qos.detections_by_layer(detections),
        "false_suspicions": frame("false_suspicions", [(e, 90, 0.26, 0, 0.0, 0.0, 14.2) for e in measured]),
        "accuracy": frame("accuracy", [(e, 0, np.nan, np.nan, 1.0) for e in measured]),
        "not_applicable": frame(
            "not_applicable",
            [(e, "refresh", "locked_out", "the user does not try again", 19) for e in measured],
        ),
        "ghosts": _ghosts(detections),
        "population": _live(detections, sum(f.count for f in faults.values()) + 90, rng),
        "timelines": _timelines(faults, measured, epsilon_s),
        "tcp_info": frame(
            "tcp_info", [("real", "host_crash", 448, 1.0, 1.0), ("real", "frozen", 32, 0.0, 0.0)]
        ),
        "lag": frame("lag", [(*row, "") for row in _lag(rng)] if "real" in engines else []),
        "lateness": frame("lateness", _lateness(rng) if "real" in engines else []),
        "resources": frame("resources", [(*row, "") for row in _resources(rng)] if "real" in engines else []),
        "incidence": incidence_by_cause(detections),
        "session_quality": frame("session_quality", [row for e in measured for row in _quality(e)]),
        "presence_flaps": frame("presence_flaps", [(e, "s1", "u1", "3", 120.0, 4.0) for e in measured]),
        "cost": frame("cost", _cost(engines)),
        "reconnects": frame("reconnects", [row for e in measured for row in _storm(e, rng)]),
        "incidents": frame("incidents", []),
        "omission": omission_of(detections),
        "agreement": frame("agreement"),
        "false_suspicion_events": frame("false_suspicion_events"),
        "healthy_connections": frame("healthy_connections"),
        "losses": frame("losses"),
        "presence_gaps": frame("presence_gaps"),
        "counted": frame("counted"),
        "revivals": frame("revivals"),
        "revival_law": frame("revival_law"),
        "injections": frame("injections"),
        "handshakes": frame("handshakes"),
        "thresholds": frame(
            "thresholds",
            [
                ("false_suspicions.count == 0", 0.0, "pass", "0 in 0.26 client-days"),
                (
                    "detection_latency{fault=host_crash}.p99 < 101s",
                    99.71,
                    "pass",
                    "99.71 s (95 %: 99.40 s to 99.98 s), 448 of 448",
                ),
            ],
        ),
    }
    return HandmadeRun(tables, _summary(engines, epsilon_s), _provenance(engines))


def draw_detections(
    engine: str, faults: Mapping[str, Fault], epsilon_s: float, rng: np.random.Generator
) -> pd.DataFrame:
    rows = []
    for name, fault in faults.items():
        injected = RAMP_S + rng.uniform(40, 120, fault.count)
        decided = rng.uniform(fault.lo_s, fault.hi_s, fault.count)
        if engine == "real":
            decided = decided + rng.uniform(0, epsilon_s / 2, fault.count)
        recovers = rng.random(fault.count) >= fault.mass
        for n in range(fault.count):
            outcome = "recovered" if recovers[n] else "detected"
            took = 35.0 + 30.0 * rng.random() if recovers[n] else decided[n]
            for step, milestone in enumerate(CHAIN):
                late = 0.0 if outcome == "recovered" else step * (0.004 if engine == "real" else 0.0005)
                cause = "" if outcome == "recovered" else fault.cause
                rows.append(
                    (
                        engine,
                        f"{name}-{n:05d}",
                        name,
                        f"s{name}{n}",
                        "gateway-0",
                        milestone,
                        cause,
                        outcome,
                        injected[n],
                        took + late,
                        5.0 if engine == "real" else 1.0,
                        took + late,
                    )
                )
            rows.append(
                (
                    engine,
                    f"{name}-{n:05d}",
                    name,
                    f"s{name}{n}",
                    "gateway-0",
                    "locked_out",
                    "",
                    "not_applicable",
                    injected[n],
                    np.nan,
                    1.0,
                    np.nan,
                )
            )
    return frame("detections", rows)


def laws_of(faults: Mapping[str, Fault]) -> pd.DataFrame:
    """Theory as it writes laws.csv: percentiles are of all faults, so there is none above the mass."""
    rows = [
        (
            name,
            milestone,
            f.cause,
            "",
            "",
            f.lo_s,
            f.hi_s,
            (f.lo_s + f.hi_s) / 2,
            *(f.lo_s + q / f.mass * (f.hi_s - f.lo_s) if q <= f.mass else np.nan for q in (0.5, 0.95, 0.99)),
            f.mass,
        )
        for name, f in faults.items()
        for milestone in ("suspected", "store_cleared")
    ]
    columns = [
        "fault",
        "milestone",
        "cause",
        "note",
        "shared",
        "lo_s",
        "hi_s",
        "mean_s",
        "p50_s",
        "p95_s",
        "p99_s",
        "detected_share",
    ]
    return pd.DataFrame(rows, columns=columns)


def curves_of(faults: Mapping[str, Fault]) -> pd.DataFrame:
    rows = [
        (name, milestone, f.lo_s + share * (f.hi_s - f.lo_s), share * f.mass)
        for name, f in faults.items()
        for milestone in ("suspected", "store_cleared")
        for share in np.linspace(0, 1, 101)
    ]
    return pd.DataFrame(rows, columns=["fault", "milestone", "duration_s", "probability"])


def _ghosts(detections: pd.DataFrame) -> pd.DataFrame:
    rows = detections[(detections["milestone"] == "store_cleared") & (detections["fault"] != "refresh")]
    rows = rows[rows["outcome"] != "not_applicable"]
    return frame("ghosts", rows[["engine", "fault_id", "fault", "outcome", "duration_s"]].to_numpy().tolist())


def _live(detections: pd.DataFrame, clients: int, rng: np.random.Generator) -> pd.DataFrame:
    rows = []
    for engine, mine in detections[detections["milestone"] == "store_cleared"].groupby("engine"):
        start = mine["injected_at_s"].to_numpy()
        stop = start + mine["duration_s"].to_numpy()
        back = (mine["outcome"] == "recovered").to_numpy()
        for t in np.arange(0, HORIZON_S, 1.0):
            up = round(clients * min(1.0, t / RAMP_S))
            dead = int(((start <= t) & ~(back & (stop <= t))).sum())
            ghosts = int(((start <= t) & (stop > t)).sum())
            rows.append((engine, t, up - dead, up - dead, up - dead + ghosts, ghosts, 0))
    return frame("population", rows)


def _quality(engine: str) -> list[tuple[object, ...]]:
    nan = np.nan
    return [
        (engine, "", "resumed", 19, 20, 0.95, 0.751, 0.999, ""),
        (engine, "refresh", "resumed", 19, 19, 1.0, 0.824, 1.0, ""),
        (engine, "", "stale_session_errors", 1, 700, 1 / 700, 0.00004, 0.0079, ""),
        (engine, "", "presence_flicker", 1, 571, 1 / 571, 0.00004, 0.0097, "of 1 sessions"),
        (engine, "", "records_of_dead_sessions", 0, 0, nan, 0.0, 1.0, ""),
    ]


def _cost(engines: tuple[str, ...]) -> list[tuple[object, ...]]:
    nan = np.nan
    rows: dict[str, tuple[object, ...]] = {
        "theory": (612.0, 20.4, 40.8, 2998.8, 0.18, nan, nan, "2N/T frames a second"),
        "simulated": (611.5, 20.3, 40.6, 2984.1, nan, nan, nan, "23 heartbeats of the traced sessions"),
        "real": (612.0, 20.1, 40.2, 2954.7, nan, 7.25, 73531392.0, "counted by the gateway"),
    }
    return [(engine, *rows[engine], nan, nan, 0.0, nan, nan, nan) for engine in engines]


def _storm(engine: str, rng: np.random.Generator) -> list[tuple[object, ...]]:
    """A ramp, then a trickle of refreshes: no storm."""
    ramp = [(engine, 2.0 * n, 2.0, 0, 20, 0, 0, 20, 0) for n in range(30)]
    gone = rng.integers(0, 2, 120)
    return ramp + [(engine, 60.0 + 2 * n, 2.0, g, g, g, 0, 0, 0) for n, g in enumerate(gone)]


def omission_of(detections: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for (engine, fault), group in detections[detections["milestone"] == "suspected"].groupby(
        ["engine", "fault"], sort=False
    ):
        p50, p99 = group["duration_s"].quantile([0.5, 0.99])
        more = 0.02 if engine == "real" else 0.0
        n = len(group)
        rows.append((engine, fault, n, n, more / 5, more, p50, p50 + more, p99, p99 + more))
    return frame("omission", rows)


def _timelines(faults: Mapping[str, Fault], engines: list[str], epsilon_s: float) -> pd.DataFrame:
    rows: list[tuple[object, ...]] = []
    for engine in engines:
        late = epsilon_s / 3 if engine == "real" else 0.0
        for name, fault in faults.items():
            fault_id = f"{name}-00000"
            end = (fault.lo_s + fault.hi_s) / 2 + late

            def add(time_s: float, lane: str, kind: str, cause: str = "", note: str = "") -> None:
                rows.append((engine, name, fault_id, time_s, lane, kind, cause, note))  # noqa: B023

            phase = 15.0
            for beat in (-75.0, -45.0, -15.0):
                add(beat, "gateway", "heartbeat_sent")
                add(beat + 0.01, "client", "heartbeat_answered")
            add(0.0, "client", "fault_injected", note=name)
            if fault.cause == "heartbeat":
                for missed in range(3):
                    add(phase + 30 * missed, "gateway", "heartbeat_sent")
                    if missed < 2:
                        add(
                            phase + 30 * missed + 10, "gateway", "heartbeat_missed", note=f"{missed + 1} of 3"
                        )
            for attempt in np.arange(0.0, end, 5.0):
                add(float(attempt), "login", "login_refused", note="already_online")
            add(end + 0.1, "login", "logged_in")
            add(end, "gateway", "suspected", fault.cause)
            add(end + 0.004, "gateway", "socket_closed", fault.cause)
            add(end + 0.05, "store", "store_cleared")
            add(end + 0.06, "peers", "peer_notified", note="watcher 3")
    return frame("timelines", rows)


def _lag(rng: np.random.Generator) -> list[tuple[object, ...]]:
    return [
        (role, pid, t, 0.001 + rng.exponential(0.002))
        for role, pid in (("gateway", 11), ("generator", 12), ("generator", 13), ("store", 14))
        for t in np.arange(0.0, HORIZON_S, 2.5)
    ]


def _lateness(rng: np.random.Generator) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = []
    for t in np.arange(0.0, HORIZON_S, 5.0):
        late = 0.0005 + rng.exponential(0.001)
        found.append(("real", "gateway-0", t, 100, late / 4, late, late * 1.5))
    return found


def _resources(rng: np.random.Generator) -> list[tuple[object, ...]]:
    return [
        (role, pid, t, rng.uniform(5, 60), 90_000_000 + int(t) * 1000, 700)
        for role, pid in (("gateway", 11), ("generator", 12))
        for t in np.arange(0.0, HORIZON_S, 10.0)
    ]


def _summary(engines: tuple[str, ...], epsilon_s: float) -> dict[str, Any]:
    summary: dict[str, Any] = {
        "name": "demo",
        "description": "The main job in one minute: power loss, crashed processes, frozen clients, expired "
        "NAT mappings and refreshes among 640 real clients under the classic 30 s x 3 policy.",
        "engines": list(engines),
        "status": "complete",
        "round_trip_s": 0.001,
        "fault_windows": [
            {"fault": name, "start_s": 100.0, "end_s": 140.0 if name == "nat_timeout" else 180.0}
            for name in DEMO
        ],
        "counts": {"clients": 640, "faults": 550},
    }
    if "real" in engines:
        summary |= {
            "speedup": 5.0,
            "epsilon_s": epsilon_s,
            "sound": True,
            "unsound_reasons": [],
            "epsilon_parts": {
                "one_way_delay_s": 0.0002,
                "gateway_lag_s": 0.03,
                "generator_lag_s": 0.02,
                "grain_s": 0.01,
                "window_from_s": 70.0,
                "window_to_s": 250.0,
                "canary_s": None,
            },
            "fidelity": [
                {
                    "fault": "host_crash",
                    "mechanism": "a socket filter drops every inbound segment; the client goes silent",
                    "cannot_show": "what a NIC or switch does on power loss",
                },
                {"fault": "frozen", "mechanism": "the client stops reading and answering", "cannot_show": ""},
            ],
        }
    return summary


def _provenance(engines: tuple[str, ...]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "scenario": "demo",
        "seed": 7,
        "engines": list(engines),
        "speedup": 5.0,
        "started": "2025-01-02T03:04:05+00:00",
        "ended": "2025-01-02T03:05:12+00:00",
        "status": "complete",
        "machine": {
            "system": "Linux 6.1",
            "python": "3.11.7",
            "cpu": "x86_64",
            "cores": 2,
            "memory_bytes": 25_769_803_776,
        },
        "versions": {"flatline": "0.1.0", "websockets": "15.0", "redis": "5.2"},
        "negative_control": None,
    }
