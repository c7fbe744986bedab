"""One step of the load: run a scenario with so many clients and nodes, and say what it took and whether it held.

From a scenario to one row of steps.csv. A real step is a whole real run without its report; a simulated one is
the model, whose service times are those of the scenario (`flatline calibrate`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from harness.conclude import measure_run
from harness.events.columns import Events
from harness.judge.soundness import Soundness
from harness.judge.threshold_metrics import METRICS, Query
from harness.judge.thresholds import NOT_ASKED, check_thresholds
from harness.real.engine import CannotRun, RealSetup
from harness.real.processes.children import ChildDied
from harness.run import prepare, run_engines
from harness.runs.directory import RunDir
from harness.studies.capacity.redis_totals import StoreWitness
from reference_server.events import EventKind
from reports.run_tables import RunTables
from scenarios.clock import SCENARIO_TIME, RunClock
from scenarios.plan import Plan
from scenarios.schema import Scenario

__all__ = ["Step", "frame_of", "run_step"]

_NAN = float("nan")
_SATURATED = 85.0  # per cent of a core: a process with one loop has nothing to spare
_CROWDED = 1.5  # runnable processes a core: a run alone has hardly one
_DID_NOT_RUN = "it did not run"
_NO_COUNTING_S = 1e6  # the store watch's count of all sessions would be most of what Redis does


@dataclass(frozen=True, slots=True)
class Step:
    """One load. Latencies are real seconds, detection scenario seconds; NaN where it was not measured.

    ``cpu_percent`` and ``rss_bytes`` are of all gateway nodes after the ramp (mean; largest); a model's is what its
    loops were busy with heartbeats and frames. ``idle_rss_bytes``: of the same nodes before the first client came.
    ``login_core_s``: of a core, for a login and a connection, heartbeats
    left out. ``commands_per_session``: a login, a connection and an end. ``missed``: the thresholds that broke.
    ``limit``: what seems to have given way.
    """

    engine: str
    nodes: int
    clients: int
    speedup: float
    holds: bool = False
    sound: bool = False
    heartbeats_per_s: float = _NAN
    lateness_p99_s: float = _NAN
    lateness_max_s: float = _NAN
    handshake_p99_s: float = _NAN
    false_suspicions: int = 0
    detection_p99_s: float = _NAN
    cpu_percent: float = _NAN
    cpu_percent_busiest: float = _NAN
    rss_bytes: float = _NAN
    idle_rss_bytes: float = _NAN
    generator_cpu_percent: float = _NAN
    login_core_s: float = _NAN
    commands_per_session: float = _NAN
    store_bytes_per_session: float = _NAN
    load_average: float = _NAN
    missed: str = ""
    limit: str = ""
    run: str = ""

    @property
    def ran(self) -> bool:
        """Whether anything was measured: the machine did not refuse it."""
        return not self.limit.startswith(_DID_NOT_RUN)

    @property
    def blames_the_machine(self) -> bool:
        """Whether it says nothing of the gateway: the run was unsound, and no gateway was out of processor time."""
        return self.ran and not self.sound and not self.cpu_percent_busiest >= _SATURATED


def frame_of(steps: list[Step]) -> pd.DataFrame:
    """steps.csv, in the order in which they ran."""
    return pd.DataFrame([asdict(step) for step in steps], columns=list(Step.__dataclass_fields__))


def run_step(
    scenario: Scenario, *, clients: int, nodes: int, real: bool, root: Path, redis_url: str | None = None
) -> Step:
    """Run one load and measure it.

    A step that the machine refuses, or in which a process dies, does not hold; its ``limit`` says why.

    Raises:
        RedisUnavailable: no Redis at all.
        ThresholdError: a threshold of the scenario cannot be checked.
    """
    load = {"clients": clients, "gateway": scenario.gateway.model_copy(update={"nodes": nodes})}
    one = scenario.model_copy(update=load | {"name": f"{scenario.name}-{nodes}x{clients}"})
    engine = "real" if real else "simulated"
    engines = ("theory", engine)
    setup = RealSetup(redis_url=redis_url, store_sample_s=_NO_COUNTING_S)
    name = ""
    try:
        run, plan = prepare(one, engines, root, setup)
        name = run.path.name
        with StoreWitness(run) if real else nullcontext() as witness:
            run_engines(one, plan, run, engines, setup)
    except (CannotRun, ChildDied) as error:
        return Step(
            engine=engine,
            nodes=nodes,
            clients=clients,
            speedup=one.speedup,
            load_average=os.getloadavg()[0],
            limit=f"{_DID_NOT_RUN}: {str(error).splitlines()[0]}",
            run=name,
        )
    clock = one.clock if real else SCENARIO_TIME
    found = measure_run(run)
    tables, sound, measured = found.tables, found.soundness, found.engines[0].tables
    written, judged = check_thresholds(one), tables.table("thresholds")
    # Below those that are written there may be the one that holds without being written.
    verdicts = zip(written, judged["value"], judged["verdict"], strict=False)
    missed = [
        threshold.expression
        for threshold, value, verdict in verdicts
        if verdict != NOT_ASKED and not threshold.allows(value)
    ]
    unwritten = judged.iloc[len(written) :]
    missed += unwritten.loc[unwritten["verdict"] == "fail", "expression"].tolist()
    used = _used(measured["resources"], plan)
    beats_per_s = clock.scenario_s(float(measured["cost"]["heartbeats_per_s"].iloc[0]))
    if real:
        used["login_core_s"] = _login_core_s(measured, plan, clock, beats_per_s, used["cpu_percent"])
    else:
        traffic = one.traffic.to_gateway
        frames_per_s = clients * traffic.burst / traffic.every.mean_s if traffic else 0.0
        used["cpu_percent"] = 100 * (
            beats_per_s * one.gateway.heartbeat_service.mean_s + frames_per_s * one.traffic.service.mean_s
        )
        used["login_core_s"] = one.gateway.handshake_service.mean_s
    store = _store(witness, found.events, run, plan, clock) if witness else {}
    is_sound = sound is None or sound.sound
    return Step(
        engine=engine,
        nodes=nodes,
        clients=clients,
        speedup=clock.speedup,
        holds=not missed and is_sound,
        sound=is_sound,
        # As the gateways counted them, a real second.
        heartbeats_per_s=beats_per_s,
        lateness_p99_s=_value("heartbeat_lateness", "p99", tables),
        lateness_max_s=_value("heartbeat_lateness", "max", tables),
        handshake_p99_s=_value("handshake", "p99", tables),
        false_suspicions=int(measured["false_suspicions"]["count"].sum()),
        detection_p99_s=_detection_p99_s(measured["detections"]),
        **used,
        **store,
        load_average=os.getloadavg()[0] if real else _NAN,
        missed="; ".join(missed),
        limit=_limit(missed, sound, used),
        run=name,
    )


def _value(metric: str, aggregate: str, tables: RunTables) -> float:
    """One metric of thresholds, of the only engine that ran."""
    engine = tables.measured_engines[0]
    return METRICS[metric].estimate(tables, Query(engine, aggregate, {})).value


def _detection_p99_s(rows: pd.DataFrame) -> float:
    mine = rows[(rows["milestone"] == "suspected") & (rows["outcome"] == "detected")]
    return float(mine["duration_s"].quantile(0.99, interpolation="higher")) if len(mine) else _NAN


def _used(rows: pd.DataFrame, plan: Plan) -> dict[str, float]:
    """Processor and memory after the ramp, and what the gateways held before anybody came."""
    idle = rows[(rows["role"] == "gateway") & (rows["time_s"] < 0)].groupby("pid")["rss_bytes"].last()
    rows = rows[rows["time_s"] >= plan.ramp_s]
    gateway = rows[rows["role"] == "gateway"].groupby("pid")
    generator = rows[rows["role"].isin(["generator", "worker"])].groupby("pid")
    each = gateway["cpu_percent"].mean()
    return {
        "cpu_percent": float(each.sum()) if len(each) else _NAN,
        "cpu_percent_busiest": float(each.max()) if len(each) else _NAN,
        "rss_bytes": float(gateway["rss_bytes"].max().sum()) if len(each) else _NAN,
        "idle_rss_bytes": float(idle.sum()) if len(each) and len(idle) == len(each) else _NAN,
        "generator_cpu_percent": float(generator["cpu_percent"].mean().max()) if len(generator) else _NAN,
    }


def _login_core_s(
    tables: Mapping[str, pd.DataFrame], plan: Plan, clock: RunClock, beats_per_s: float, steady_percent: float
) -> float:
    """What the gateways took while the clients came, less what they take for as many heartbeats when all are there."""
    rows = tables["resources"]
    used_s, until_s = 0.0, 0.0
    for _, mine in rows[rows["role"] == "gateway"].groupby("pid"):
        took_s = mine["time_s"].diff().to_numpy()
        # Each sample is about the time since the one before.
        came = (mine["time_s"] > 0) & (mine["time_s"] - took_s < plan.ramp_s)
        used_s += clock.real_s(float((mine["cpu_percent"] / 100 * took_s)[came].sum()))
        until_s = max(until_s, float(mine.loc[came, "time_s"].max()))
    late = tables["lateness"]
    beats = float(late.loc[late["time_s"] <= until_s, "n"].sum())
    return max(0.0, used_s - steady_percent / 100 * beats / beats_per_s) / plan.clients


def _store(
    witness: StoreWitness, events: Events, run: RunDir, plan: Plan, clock: RunClock
) -> dict[str, float]:
    """Commands and bytes a session; what Redis does anyway is told between the ramp and the first fault."""
    # CLOCK_MONOTONIC at the plan's time zero
    began_s = run.gateway_configs()[0].origin_s + (run.clients_began_s() or 0.0)
    first_s = min((f.at_s for f in plan.faults), default=plan.horizon_s)
    edges_s = (0.0, plan.ramp_s, first_s, plan.horizon_s - clock.scenario_s(1.0))
    totals = [witness.at(began_s + clock.real_s(edge_s)) for edge_s in edges_s]
    (ramp, ramp_bytes), (quiet, _), (ends, _) = np.diff(totals, axis=0).tolist()
    quiet_s = clock.real_s(first_s - plan.ramp_s)
    ended = int(events.is_of(EventKind.STORE_CLEARED).sum())
    steady = quiet / quiet_s * clock.real_s(plan.horizon_s - first_s) if quiet_s > 0 else 0.0
    end = max(0.0, ends - steady) / ended if ended else 0.0
    return {
        "commands_per_session": ramp / plan.clients + end,
        "store_bytes_per_session": ramp_bytes / plan.clients,
    }


def _limit(missed: list[str], sound: Soundness | None, used: dict[str, float]) -> str:
    """What seems to have given way, by who was busy; empty where all held."""
    if not missed and (sound is None or sound.sound):
        return ""
    if sound is None:
        return "the model's loop"
    busy = [
        name
        for name, key in (("gateway", "cpu_percent_busiest"), ("generator", "generator_cpu_percent"))
        if used[key] >= _SATURATED
    ]
    if busy:
        return " and ".join(busy) + ": no processor time left"
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > _CROWDED * cores:
        why = "" if sound.sound else f"; unsound: {sound.reasons[0]}"
        return f"the machine was busy with other work, too: load average {load:.1f} on {cores} cores{why}"
    if not sound.sound:
        return f"unsound: {sound.reasons[0]}"
    return "not the processor"
