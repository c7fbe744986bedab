"""Conditions from a run directory: round trips of its traced clients, outages of its healthy ones, idle timers met.

From a run's scenario, plan, events and detections to `Conditions`. All outages and idle timers of a run were
injected by it; of a log from elsewhere they are what it saw.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pandas as pd

from harness.eventlog import read_log
from harness.faults import Plan
from harness.history import History
from harness.rundir import RunDir
from harness.theory import patience_s
from harness.theory.law import FloatArray
from harness.tune.conditions import Conditions
from harness.tune.network_data import NetworkDataError, conditions_of
from reference_server.durations import format_duration
from reference_server.events import EventKind, Source
from scenarios.load import load_scenario
from scenarios.network import Nat
from scenarios.schema import Scenario

__all__ = ["network_from_run"]


def network_from_run(run: RunDir) -> Conditions:
    """Fit a network to what a run's witnesses saw; the real engine's where it ran, else the simulated one's.

    * Round trips: twice the time from a ping's sending (gateway) to its arrival (client), one clock; real seconds.
    * Outages: begin and end at the client, scenario seconds; one still on at the end is cut short.
    * Idle timer: a NAT that lost a client T_D before its suspicion forgets N = T + (k−1)R + τ − T_D after
      the last packet (T − T_D where it answers with RST); one that lost nobody has N > T.

    Raises:
        NetworkDataError: no traced heartbeats or too few, or outages that cannot be fitted.
        RunDirError, ScenarioError, OSError: not a complete run directory.
    """
    scenario, plan = load_scenario(str(run.scenario)), Plan.load(run.plan)
    events = read_log(run.events).events
    engine = "real" if any(event.source is Source.CLIENT for event in events) else "simulated"
    history = History(
        events, plan, engine=engine, speedup=scenario.speedup, horizon_s=plan.horizon_s
    )
    lengths_s, ongoing = _outages(history)
    healthy = plan.clients - len(plan.faults)
    observed_s = healthy * max(0.0, history.end_s - plan.ramp_s)
    return conditions_of(
        f"run-{run.path.name}",
        f"{engine} engine of {run.path.name}",
        round_trips_s=_round_trips_s(history),
        outages_s=lengths_s,
        outages_ongoing=ongoing,
        observed_s=observed_s if observed_s > 0 else None,
        nat=_nat(run, scenario, plan, engine),
    )


def _round_trips_s(history: History) -> FloatArray:
    """Real seconds: round trips do not shrink with a speedup."""
    sent = history.by_session(EventKind.HEARTBEAT_SENT, Source.GATEWAY)
    answered = history.by_session(EventKind.HEARTBEAT_ANSWERED, Source.CLIENT)
    trips: list[float] = []
    for session_id, pings in sent.items():
        pings_s = np.sort([event.time_s for event in pings])
        answers_s = np.sort([event.time_s for event in answered.get(session_id, [])])
        # The next answer belongs to this ping if it comes before the next ping.
        nth = np.searchsorted(answers_s, pings_s, side="left")
        after = np.append(pings_s[1:], np.inf)
        seen = nth < len(answers_s)
        one_way = answers_s[nth[seen]] - pings_s[seen]
        trips += (2 * one_way[(answers_s[nth[seen]] < after[seen]) & (one_way > 0)]).tolist()
    if not trips:
        raise NetworkDataError(
            "no ping of a traced client was answered; a run traces one client of every fault"
        )
    return np.array(trips)


def _outages(history: History) -> tuple[FloatArray, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    ends: dict[object, list[float]] = defaultdict(list)
    for event in history.of(EventKind.OUTAGE_ENDED):
        ends[event.detail.get("client")].append(history.time_s(event))
    lengths, ongoing = [], []
    for event in history.of(EventKind.OUTAGE_STARTED):
        begun_s = history.time_s(event)
        later = [t for t in ends[event.detail.get("client")] if t >= begun_s]
        until_s = min(later, default=history.end_s)
        if until_s > begun_s:
            lengths.append(until_s - begun_s)
            ongoing.append(not later)
    return np.array(lengths, dtype=float), np.array(ongoing, dtype=bool)


def _nat(run: RunDir, scenario: Scenario, plan: Plan, engine: str) -> tuple[Nat, str] | None:
    """The shortest idle timer that the run met; None where it met none."""
    policy = scenario.liveness
    faulted = {fault.fault_id for fault in plan.faults if fault.kind == "nat_timeout"}
    if not faulted or policy.heartbeat_interval is None or not run.table("detections").exists():
        return None
    rows = pd.read_csv(run.table("detections"), keep_default_na=False, na_values=[""])
    rows = rows[
        (rows["engine"] == engine)
        & (rows["milestone"] == "suspected")
        & rows["fault_id"].isin(faulted)
    ]
    lost = rows[rows["outcome"] == "detected"]
    if lost.empty:
        t = policy.heartbeat_interval
        note = (
            f"beats every {format_duration(t)} kept every NAT open: {format_duration(t)} is taken as the idle "
            "timer, though it is longer"
        )
        return Nat(idle_timeout=t), note
    reset = (lost["cause"] == "tcp_reset").to_numpy()
    waited = policy.heartbeat_interval + np.where(reset, 0.0, patience_s(policy))
    timers = waited - lost["duration_s"].to_numpy(dtype=float)
    idle_s = float(np.round(pd.Series(timers).groupby(lost["fault"].to_numpy()).median().min(), 3))
    expiry = "reset" if reset.all() else "drop"
    note = f"idle timer of {format_duration(idle_s)} by the latency of {len(lost)} losses: {expiry}"
    return Nat.model_validate({"idle_timeout": idle_s, "expiry": expiry}), note
