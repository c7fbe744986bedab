"""One step of the load: run a scenario with so many clients and nodes, and say what it took and whether it held.

From a scenario to one row of steps.csv. A real step is a whole real run without its report; a simulated one is
the model, whose service times are those of the scenario (`flatline calibrate`).
"""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from harness.conclude import soundness_of
from harness.events.history import workers_of
from harness.events.log import merge_logs, write_log
from harness.judge.soundness import Soundness
from harness.judge.threshold_metrics import METRICS, Query
from harness.judge.thresholds import check_thresholds, evaluate
from harness.measure.one_engine import Measured, measure
from harness.real.engine import CannotRun, RealSetup, check_machine, run_real
from harness.real.processes.children import ChildDied
from harness.runs.directory import RunDir, new_run
from harness.runs.provenance import begin, finish
from harness.simulated import simulate
from harness.studies.capacity.redis_totals import StoreTotals, StoreWitness
from reference_server.events import Event, EventKind
from reports.run_tables import RunTables, frame
from scenarios.clock import SCENARIO_TIME, RunClock
from scenarios.load import dump_scenario
from scenarios.plan import Plan, make_plan
from scenarios.schema import Scenario

__all__ = ["Step", "frame_of", "run_step"]

_NAN = float("nan")
_SATURATED = 85.0  # per cent of a core: a process with one loop has nothing to spare
_CROWDED = 1.5  # runnable processes a core: a run alone has hardly one
_NO_COUNTING_S = 1e6  # the store watch's count of all sessions would be most of what Redis does


@dataclass(frozen=True, slots=True)
class Step:
    """One load. Latencies are real seconds, detection scenario seconds; NaN where it was not measured.

    ``cpu_percent`` and ``rss_bytes`` are of all gateway nodes after the ramp (mean; largest),
    ``commands_per_session``: a login, a connection and an end. ``commands_per_client_s``: real seconds, in the
    steady state. ``missed``: the thresholds that broke. ``limit``: what seems to have given way.
    """

    engine: str
    nodes: int
    clients: int
    speedup: float
    holds: bool
    sound: bool
    heartbeats_per_s: float
    lateness_p99_s: float
    lateness_max_s: float
    handshake_p99_s: float
    false_suspicions: int
    detection_p99_s: float
    cpu_percent: float
    cpu_percent_busiest: float
    rss_bytes: float
    generator_cpu_percent: float
    commands_per_session: float
    store_bytes_per_session: float
    commands_per_client_s: float
    load_average: float
    missed: str
    limit: str
    run: str


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
    one = scenario.model_copy(
        update={"clients": clients, "gateway": scenario.gateway.model_copy(update={"nodes": nodes})}
    )
    thresholds = check_thresholds(one)
    plan = make_plan(one)
    engine = "real" if real else "simulated"
    run = new_run(root, f"{nodes}x{clients}")
    run.scenario.write_text(dump_scenario(one))
    plan.save(run.plan)
    setup = RealSetup(redis_url=redis_url, store_sample_s=_NO_COUNTING_S)
    begin(run, one, plan, ("theory", engine), setup if real else None)
    witness: StoreWitness | None = None
    if real:
        try:
            with StoreWitness(run) as witness:
                check_machine(plan, one, setup)
                run_real(one, plan, run, setup=setup)
        except (CannotRun, ChildDied) as error:
            finish(run, "partial")
            return _broken(one, engine, str(error), run)
    else:
        write_log(run.log("simulation"), simulate(one, plan))
    finish(run, "complete")
    events = merge_logs(run.logs, run.events).events
    clock = one.clock if real else SCENARIO_TIME
    measured = measure(events, plan, engine=engine, clock=one.clock, horizon_s=plan.horizon_s)
    sound = soundness_of(one, plan, [measured], workers_of(events))
    tables = _tables(measured, sound)
    verdicts = evaluate(thresholds, tables)
    kept = [t.allows(v) for t, v in zip(thresholds, verdicts["value"], strict=True)]
    missed = [t.expression for t, ok in zip(thresholds, kept, strict=True) if not ok]
    used = _used(measured, plan)
    store = _store(witness, events, run, plan, clock) if witness else (_NAN, _NAN, _NAN)
    is_sound = sound is None or sound.sound
    return Step(
        engine=engine,
        nodes=nodes,
        clients=clients,
        speedup=clock.speedup,
        holds=not missed and is_sound,
        sound=is_sound,
        heartbeats_per_s=_rate(measured, clock),
        lateness_p99_s=_value("heartbeat_lateness", "p99", tables),
        lateness_max_s=_value("heartbeat_lateness", "max", tables),
        handshake_p99_s=_value("handshake", "p99", tables),
        false_suspicions=int(measured.tables["false_suspicions"]["count"].sum()),
        detection_p99_s=_detection_p99_s(measured),
        **used,
        commands_per_session=store[0],
        store_bytes_per_session=store[1],
        commands_per_client_s=store[2],
        load_average=os.getloadavg()[0],
        missed="; ".join(missed),
        limit=_limit(missed, sound, used),
        run=run.path.name,
    )


def _broken(one: Scenario, engine: str, why: str, run: RunDir) -> Step:
    numbers = dict.fromkeys(
        (
            "heartbeats_per_s",
            "lateness_p99_s",
            "lateness_max_s",
            "handshake_p99_s",
            "detection_p99_s",
            "cpu_percent",
            "cpu_percent_busiest",
            "rss_bytes",
            "generator_cpu_percent",
            "commands_per_session",
            "store_bytes_per_session",
            "commands_per_client_s",
        ),
        _NAN,
    )
    return Step(
        engine=engine,
        nodes=one.gateway.nodes,
        clients=one.clients,
        speedup=one.speedup,
        holds=False,
        sound=False,
        false_suspicions=0,
        load_average=os.getloadavg()[0],
        missed="",
        limit=f"it did not run: {why.splitlines()[0]}",
        run=run.path.name,
        **numbers,
    )


def _value(metric: str, aggregate: str, tables: RunTables) -> float:
    """One metric of thresholds, of the only engine that ran."""
    engine = tables.measured_engines[0]
    return METRICS[metric].estimate(tables, Query(engine, aggregate, {})).value


def _tables(measured: Measured, sound: Soundness | None) -> RunTables:
    facts = {"engines": [measured.engine], "epsilon_s": sound.epsilon_s if sound else 0.0}
    frames = {**measured.tables, "agreement": frame("agreement")}
    return RunTables(Path(), facts, {}, frozenset(), frames)


def _detection_p99_s(measured: Measured) -> float:
    rows = measured.tables["detections"]
    mine = rows[(rows["milestone"] == "suspected") & (rows["outcome"] == "detected")]
    return float(mine["duration_s"].quantile(0.99, interpolation="higher")) if len(mine) else _NAN


def _rate(measured: Measured, clock: RunClock) -> float:
    """Heartbeats a real second, as the gateways counted them."""
    return clock.scenario_s(float(measured.tables["cost"]["heartbeats_per_s"].iloc[0]))


def _used(measured: Measured, plan: Plan) -> dict[str, float]:
    """Processor and memory after the ramp."""
    rows = measured.tables["resources"]
    rows = rows[rows["time_s"] >= plan.ramp_s]
    gateway = rows[rows["role"] == "gateway"].groupby("pid")
    generator = rows[rows["role"].isin(["generator", "worker"])].groupby("pid")
    each = gateway["cpu_percent"].mean()
    return {
        "cpu_percent": float(each.sum()) if len(each) else _NAN,
        "cpu_percent_busiest": float(each.max()) if len(each) else _NAN,
        "rss_bytes": float(gateway["rss_bytes"].max().sum()) if len(each) else _NAN,
        "generator_cpu_percent": float(generator["cpu_percent"].mean().max()) if len(generator) else _NAN,
    }


def _store(
    witness: StoreWitness, events: list[Event], run: RunDir, plan: Plan, clock: RunClock
) -> tuple[float, float, float]:
    """Commands and bytes a session, and commands a client and real second between the ramp and the first fault."""
    began_s = _began_monotonic_s(run)
    first_s = min((f.at_s for f in plan.faults), default=plan.horizon_s)

    def at(scenario_s: float) -> StoreTotals:
        return witness.at(began_s + clock.real_s(scenario_s))

    ramp = at(plan.ramp_s).since(at(0.0))
    quiet_s = clock.real_s(first_s - plan.ramp_s)
    quiet = at(first_s).since(at(plan.ramp_s))
    ends = at(plan.horizon_s - clock.scenario_s(1.0)).since(at(first_s))
    ended = sum(e.kind is EventKind.STORE_CLEARED for e in events)
    rate = quiet.commands / quiet_s / plan.clients if quiet_s > 0 else _NAN
    steady = rate * plan.clients * clock.real_s(plan.horizon_s - first_s)
    end = max(0.0, ends.commands - (0.0 if math.isnan(steady) else steady)) / ended if ended else 0.0
    return ramp.commands / plan.clients + end, ramp.bytes / plan.clients, rate


def _began_monotonic_s(run: RunDir) -> float:
    """CLOCK_MONOTONIC at the plan's time zero."""
    return run.gateway_configs()[0].origin_s + (run.clients_began_s() or 0.0)


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
