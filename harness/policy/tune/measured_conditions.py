"""Conditions from measurements: a CSV of samples, or a run directory.

From files to `Conditions` with fitted laws and how good each fit is. A run directory gives the round trips of its
traced clients, the outages of its healthy ones, and the idle timers that it met. Measures nothing itself.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from harness.events.history import History
from harness.events.log import read_log
from harness.measure.health import outages, poisson_interval, round_trips_s
from harness.policy.tune.conditions import Conditions
from harness.policy.tune.fit import Fit, fit_law
from harness.runs.directory import RunDir
from harness.simulated.fleet import not_simulated
from harness.theory.law import FloatArray
from reference_server.durations import format_duration
from reference_server.errors import FlatlineError
from reference_server.events import EventKind, Source
from scenarios.faults.nat_timeout import DrawnNatTimeout
from scenarios.load import load_scenario
from scenarios.network import Nat, Network, Outages
from scenarios.plan import Plan
from scenarios.schema import Scenario

__all__ = ["COLUMNS", "NetworkDataError", "conditions_of", "network_from_csv", "network_from_run"]

COLUMNS = {
    "round_trip_s": "a measured round trip, seconds",
    "outage_s": "length of an outage, seconds",
    "outage_ongoing": "1: it had not ended when the measurement did",
    "observed_s": "how long a client was watched for outages, seconds; added up",
    "idle_s": "how long a connection was left idle, seconds",
    "survived": "1: it still worked after that, 0: it did not",
    "expiry": "how it failed: drop or reset",
}
"""Columns of a CSV file and what they hold. Any may be missing, blank cells are passed over."""

_OUTAGE_FAMILIES = ("exponential", "lognormal")  # a thin tail would promise too much
_SEED = 0x6E6574  # of the fit test's Monte Carlo: the same data give the same words


class NetworkDataError(FlatlineError):
    """Measurements that cannot be used: file, column and what is wrong."""


def network_from_csv(path: Path) -> Conditions:
    """Fit a network to samples in a CSV file; see `COLUMNS`.

    Raises:
        NetworkDataError: not a CSV, an unknown column, something that is not a time above zero, no round trip,
            outages without `observed_s`.
    """
    try:
        table = pd.read_csv(path, skipinitialspace=True)
    except (OSError, ValueError) as error:
        raise NetworkDataError(f"{path}: cannot be read: {error}") from error
    if unknown := [str(name) for name in table.columns if name not in COLUMNS]:
        raise NetworkDataError(f"{path}: unknown column {', '.join(unknown)}; allowed: {', '.join(COLUMNS)}")
    times = {
        name: _numbers(table, name, path) for name in ("round_trip_s", "outage_s", "observed_s", "idle_s")
    }
    ongoing = np.zeros(len(times["outage_s"]), dtype=bool)
    if "outage_ongoing" in table:
        if "outage_s" not in table:
            raise NetworkDataError(f"{path}: outage_ongoing without outage_s")
        told = table.loc[table["outage_s"].notna(), "outage_ongoing"].fillna(0)
        ongoing = told.astype(bool).to_numpy()
    probes = _probes(table, path)
    return conditions_of(
        path.stem,
        str(path),
        round_trips_s=times["round_trip_s"],
        outages_s=times["outage_s"],
        outages_ongoing=ongoing,
        observed_s=float(times["observed_s"].sum()) if len(times["observed_s"]) else None,
        nat=None if probes is None else _nat_of_data(*probes, path),
    )


def conditions_of(
    name: str,
    source: str,
    *,
    round_trips_s: FloatArray,
    outages_s: FloatArray,
    outages_ongoing: np.ndarray[tuple[int], np.dtype[np.bool_]],
    observed_s: float | None,
    nat: tuple[Nat, str] | None,
) -> Conditions:
    """Fit the laws of measured times.

    Args:
        name, source: for messages.
        round_trips_s: shape (n,); at least five.
        outages_s, outages_ongoing: lengths, shape (m,), and which had not ended.
        observed_s: client time in which they happened, seconds; None: nobody looked.
        nat: idle timer and how it is known.

    Raises:
        NetworkDataError: too little data to fit, or outages without the time in which they happened.
    """
    rng = np.random.default_rng(_SEED)
    if len(outages_s) and observed_s is None:
        raise NetworkDataError(f"{source}: outages without the time they were looked for; add observed_s")
    notes, fits = [f"measured: {source}"], []
    try:
        trip = fit_law("round trip", round_trips_s, rng=rng)
        fits.append(trip)
        outages = None
        if len(outages_s) and observed_s is not None:
            outages, length, note = _outages_of_data(outages_s, outages_ongoing, observed_s, rng)
            fits.append(length)
            notes.append(note)
    except ValueError as error:
        raise NetworkDataError(f"{source}: {error}") from error
    if not len(outages_s):
        notes.append(_no_outage(observed_s))
    notes.append("no idle timer was looked for" if nat is None else nat[1])
    network = Network(round_trip=trip.law, outages=outages)
    return Conditions(name, network, nat[0] if nat else None, notes=tuple(notes), fits=tuple(fits))


def _outages_of_data(
    lengths_s: FloatArray,
    ongoing: np.ndarray[tuple[int], np.dtype[np.bool_]],
    observed_s: float,
    rng: np.random.Generator,
) -> tuple[Outages, Fit, str]:
    up_s = observed_s - float(lengths_s.sum())
    if up_s <= 0:
        raise ValueError(
            f"observed_s is {observed_s:g} in all, no more than the outages themselves; "
            "it is the whole time that clients were watched"
        )
    fit = fit_law(
        "outage", lengths_s[~ongoing], cut_short=lengths_s[ongoing], families=_OUTAGE_FAMILIES, rng=rng
    )
    low, high = (1 / rate for rate in reversed(poisson_interval(len(lengths_s), up_s)))
    note = (
        f"an outage every {format_duration(round(up_s / len(lengths_s)))} of a client "
        f"(95 %: {format_duration(round(low))} to {format_duration(round(high))}, from {len(lengths_s)})"
    )
    return Outages(every=up_s / len(lengths_s), length=fit.law), fit, note


def _no_outage(observed_s: float | None) -> str:
    if observed_s is None:
        return "no outages were looked for: false suspicions are those of slow answers alone"
    most = poisson_interval(0, observed_s / 86400)[1]
    return (
        f"no outage in {observed_s / 86400:.3g} client-days, so fewer than {most:.3g} a client-day (95 %); "
        "false suspicions are those of slow answers alone"
    )


def _numbers(table: pd.DataFrame, name: str, path: Path) -> FloatArray:
    if name not in table:
        return np.empty(0)
    told = table[name].dropna()
    numbers = pd.to_numeric(told, errors="coerce")
    bad = told[numbers.isna() | (numbers <= 0)]
    if len(bad):
        line = int(str(bad.index[0])) + 2
        raise NetworkDataError(f"{path}:{line}: {name} is {bad.iloc[0]}; allowed: {COLUMNS[name]}, above 0")
    return numbers.to_numpy(dtype=float)


def _probes(table: pd.DataFrame, path: Path) -> tuple[FloatArray, FloatArray, str] | None:
    """(idle times survived, idle times that failed, how they failed)."""
    if "idle_s" not in table or not table["idle_s"].notna().any():
        return None
    rows = table[table["idle_s"].notna()]
    if "survived" not in rows or not rows["survived"].isin([0, 1]).all():
        raise NetworkDataError(f"{path}: every idle_s needs survived; allowed: 0 or 1")
    told = rows["expiry"].dropna().unique().tolist() if "expiry" in rows else []
    if not set(told) <= {"drop", "reset"}:
        raise NetworkDataError(f"{path}: expiry is {told}; allowed: drop or reset")
    survived = rows["survived"] == 1
    idle = rows["idle_s"].to_numpy(dtype=float)
    # Where both were seen the silent one is the worse.
    expiry = "reset" if told == ["reset"] else "drop"
    return idle[survived], idle[~survived], expiry


def _nat_of_data(survived_s: FloatArray, failed_s: FloatArray, expiry: str, path: Path) -> tuple[Nat, str]:
    """The idle timer lies between the longest time survived and the shortest that failed; take the former."""
    if not len(failed_s):
        longest = float(survived_s.max())
        note = (
            f"idle for {format_duration(longest)} at most was tried, and survived: taken as the idle timer, "
            "though it may be longer"
        )
        return _made(longest, expiry), note
    shortest = float(failed_s.min())
    below = survived_s[survived_s < shortest]
    if not len(below):
        raise NetworkDataError(
            f"{path}: idle for {shortest:g} s failed, and nothing shorter was seen to survive; "
            "add probes with a shorter idle_s"
        )
    longest = float(below.max())
    note = f"idle timer between {format_duration(longest)} and {format_duration(shortest)}: {expiry}"
    if (survived_s >= shortest).any():
        note += "; longer idle times survived too: it is not one constant"
    return _made(longest, expiry), note


def _made(idle_s: float, expiry: str) -> Nat:
    return Nat.model_validate({"idle_timeout": idle_s, "expiry": expiry})


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
    engine = "real" if Source.CLIENT in events.sources else "simulated"
    history = History(events, plan, engine=engine, clock=scenario.clock, horizon_s=plan.horizon_s)
    trips_s = round_trips_s(
        [*history.of(EventKind.HEARTBEAT_SENT), *history.of(EventKind.HEARTBEAT_ANSWERED)]
    )
    if not len(trips_s):
        raise NetworkDataError(
            "no ping of a traced client was answered; a run traces one client of every fault"
        )
    spans = sorted(span for client in outages(history).values() for span in client)
    spans = [(start_s, stop_s) for start_s, stop_s in spans if start_s < min(stop_s, history.end_s)]
    healthy = plan.clients - len(plan.faults)
    observed_s = healthy * max(0.0, history.end_s - plan.ramp_s)
    found = conditions_of(
        f"run-{run.path.name}",
        f"{engine} engine of {run.path.name}",
        round_trips_s=trips_s,
        outages_s=np.array([min(stop_s, history.end_s) - start_s for start_s, stop_s in spans]),
        outages_ongoing=np.array([np.isinf(stop_s) for _, stop_s in spans], dtype=bool),
        observed_s=observed_s if observed_s > 0 else None,
        nat=_nat(run, scenario, plan, engine),
    )
    lost = _lost_to_the_middle(run, engine)
    return replace(
        found,
        max_age_s=scenario.network.max_age,
        not_simulated=not_simulated(scenario),
        notes=(*found.notes, *([lost] if lost else [])),
    )


def _lost_to_the_middle(run: RunDir, engine: str) -> str:
    """What the run's healthy clients lost to boxes on the way; empty: nothing, or it was not measured."""
    if not run.table("losses").exists():
        return ""
    rows = pd.read_csv(run.table("losses"), keep_default_na=False, na_values=[""])
    rows = rows[(rows["engine"] == engine) & (rows["author"] == "middle") & (rows["connections"] > 0)]
    if rows.empty:
        return ""
    row = rows.iloc[0]
    return (
        f"boxes on the way ended {int(row['connections'])} connections of healthy clients in that run, "
        f"{float(row['rate_per_client_day']):.3g} a client-day; none of them is a suspicion"
    )


def _nat(run: RunDir, scenario: Scenario, plan: Plan, engine: str) -> tuple[Nat, str] | None:
    """The shortest idle timer that the run met; None where it met none."""
    policy = scenario.liveness
    if scenario.network.nat is not None:
        timer = format_duration(scenario.network.nat.idle_timeout)
        return scenario.network.nat, f"idle timer of {timer}: the run's own network.nat"
    faulted = {fault.fault_id for fault in plan.faults if isinstance(fault.params, DrawnNatTimeout)}
    if not faulted or policy.heartbeat_interval is None or not run.table("detections").exists():
        return None
    rows = pd.read_csv(run.table("detections"), keep_default_na=False, na_values=[""])
    rows = rows[
        (rows["engine"] == engine) & (rows["milestone"] == "suspected") & rows["fault_id"].isin(faulted)
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
    waited = policy.heartbeat_interval + np.where(reset, 0.0, policy.patience_s)
    timers = waited - lost["duration_s"].to_numpy(dtype=float)
    idle_s = float(np.round(pd.Series(timers).groupby(lost["fault"].to_numpy()).median().min(), 3))
    expiry = "reset" if reset.all() else "drop"
    note = f"idle timer of {format_duration(idle_s)} by the latency of {len(lost)} losses: {expiry}"
    return Nat.model_validate({"idle_timeout": idle_s, "expiry": expiry}), note
