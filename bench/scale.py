"""Very many real clients: is every fault accounted for, nobody else suspected, every heartbeat in time?

    python -m bench.scale [--clients 20000] [--nodes 2] [--workers N] [--rate 350] [--interval 30]

Runs the scenario `scale` for real (1 % host crashes, 1 % refreshes) and reads the run's own tables.
`make bench-scale` has 100,000 clients; a quarter of a million: `--clients 250000 --nodes 14 --rate 500 --interval 60`
(the scenario's other times are in proportion; a machine on which a client costs 8 ms while they come takes 150 a second
up to 110,000 of them, and no 250,000).
Clients come at a fixed rate, so that logins and handshakes leave the machine's cores room for heartbeats.
Limits: every fault detected or recovered, no false suspicion, p99 lateness of heartbeats below 5 % of T, a sound
run. Peak memory is resident memory of all processes of the run, first with the pages that processes share (libraries)
counted in each, then divided among them (PSS, looked at every ten seconds), which is what a client takes; and what the
machine's available memory lost, sockets in the kernel included.

A timing on a machine that others use says little: the load average is printed with it.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil

from bench.figures import Figure, add_save, keep
from harness.real.engine import RealSetup
from harness.real.machine_limits import this_machine, workers_for
from harness.real.resources import RepeatingThread
from harness.run import run
from harness.runs.directory import find_run
from scenarios.load import load_scenario, replaced
from scenarios.schema import Scenario

MOST_LATE = 0.05  # of T
_MOST_KIB = {"gateway": 10.0, "generator": 10.0}
_GIB, _KIB = 2**30, 2**10
_ROLES = {
    "reference_server": "gateway",
    "harness.real.generator": "generator",
    "harness.real.store_watch": "store-watch",
    "redis-server": "redis",
}


class Memory(RepeatingThread):
    """The least memory that the machine had to give while the context lasted, and what each role took of it."""

    def __init__(self) -> None:
        super().__init__(self._look, 10.0)
        self.before = self.least = psutil.virtual_memory().available
        self.most: Counter[str] = Counter()  # bytes by role, what processes share divided among them

    def _look(self) -> None:
        self.least = min(self.least, psutil.virtual_memory().available)
        now: Counter[str] = Counter()
        for one in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                said = " ".join(one.cmdline())
                role = next((role for word, role in _ROLES.items() if word in said), None)
                if role is not None:
                    now[role] += one.memory_full_info().pss
        if now.total() > self.most.total():
            self.most = now


def p99_at_most(lateness: pd.DataFrame) -> float:
    """An upper bound of the p99 of all heartbeats, seconds, from the quantiles of each second of each node.

    Above a bound x lie: nothing of a second whose largest is at most x, 1 % of one whose p99 is, half of one
    whose p50 is, all of the others.
    """
    n = lateness["n"].to_numpy(float)
    quantiles = lateness[["p50_s", "p99_s", "max_s"]].to_numpy(float)
    for x in np.unique(quantiles):
        above = np.where(quantiles[:, 0] > x, 1.0, np.where(quantiles[:, 1] > x, 0.5, 0.01))
        above[quantiles[:, 2] <= x] = 0.0
        if (n * above).sum() <= 0.01 * n.sum():
            return float(x)
    return float("nan")


def peak(resources: pd.DataFrame) -> pd.Series:
    """Resident bytes by role at the second in which all of them together were largest."""
    second = resources["time_s"].round()
    by_role = (
        resources.assign(role=resources["role"].str.partition("/")[0])
        .groupby([second, "role"])["rss_bytes"]
        .sum()
        .unstack(fill_value=0)
    )
    largest: pd.Series = by_role.loc[by_role.sum(axis=1).idxmax()]
    return largest


def in_proportion(scenario: Scenario, interval_s: float) -> dict[str, Any]:
    """Return what another interval makes of the scenario: its times in proportion, and no thresholds of its own."""
    assert scenario.liveness.heartbeat_interval is not None
    factor = interval_s / scenario.liveness.heartbeat_interval
    liveness = ("heartbeat_interval", "heartbeat_timeout", "retry_interval")
    faults = scenario.model_dump(include={"faults"})["faults"]
    for fault in faults:
        fault["at"] = {"uniform": {name: factor * fault["at"]["uniform"][name] for name in ("low", "high")}}
    return {
        "duration": factor * scenario.duration,
        "liveness": {name: factor * getattr(scenario.liveness, name) for name in liveness},
        "faults": faults,
        "thresholds": [],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Very many real clients.")
    parser.add_argument("--clients", type=int, default=20_000)
    parser.add_argument("--nodes", type=int, default=2, help="gateway processes")
    parser.add_argument("--workers", type=int, help="generator processes; default: what they need")
    parser.add_argument("--rate", type=float, default=350.0, help="clients that come a second")
    parser.add_argument("--interval", type=float, default=30.0, help="T, seconds")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    add_save(parser)
    options = parser.parse_args()
    scenario = load_scenario("scale", clients=options.clients, ramp=options.clients / options.rate)
    scenario = replaced(scenario, "bench.scale", **in_proportion(scenario, options.interval))
    scenario = replaced(scenario, "bench.scale", gateway={"nodes": options.nodes})
    load_before, began_s = os.getloadavg()[0], time.monotonic()
    with Memory() as memory:
        outcome = run(
            scenario,
            engines=("theory", "real"),
            root=options.runs,
            setup=RealSetup(workers=options.workers),
            warn=lambda text: print(f"warning: {text}"),
        )
    took_s = time.monotonic() - began_s
    directory = find_run("latest", options.runs)

    def table(name: str) -> pd.DataFrame:
        return pd.read_csv(directory.table(name))

    found = table("detections").query("engine == 'real' and milestone == 'suspected'")
    outcomes = found.groupby(["fault", "outcome"]).size()
    accounted = int(found["outcome"].isin(["detected", "recovered"]).sum())
    suspicions = int(table("false_suspicions").query("engine == 'real'")["count"].sum())
    interval_s = scenario.liveness.heartbeat_interval
    assert interval_s is not None
    late_s, latest_s = p99_at_most(table("lateness")), table("lateness")["max_s"].max()
    summary = directory.read_json(directory.summary)
    resources = table("resources")
    most = peak(resources)
    steady = resources[resources["time_s"] > scenario.ramp]
    ramp = resources[(resources["time_s"] > 1) & (resources["time_s"] <= scenario.ramp)]
    seconds = ramp["time_s"].max() - ramp["time_s"].min()
    newcomer_ms = 10 * ramp.groupby("role")["cpu_percent"].sum() / seconds / options.rate
    cpu = steady.groupby(["role", "pid"])["cpu_percent"].mean().groupby("role").sum()
    workers = options.workers or workers_for(options.clients, this_machine())

    print(
        f"{options.clients} clients, {options.nodes} nodes, {workers} generators, T = {interval_s:g} s, "
        f"{options.rate:g} clients a second"
    )
    print(f"took {took_s:.0f} s; load average {load_before:.1f} before, {os.getloadavg()[0]:.1f} after")
    for (fault, kind), count in outcomes.items():
        print(f"  {fault:12} {kind:12} {count}")
    print(f"faults accounted for: {accounted} of {round(options.clients * 0.01) * 2}")
    print(f"false suspicions: {suspicions}")
    print(f"heartbeat lateness: p99 at most {late_s * 1000:.0f} ms, largest {latest_s * 1000:.0f} ms")
    print(f"ε: {summary['epsilon_s'] or float('nan'):.3f} s; {outcome.headline}")
    for reason in outcome.lines:
        print(f"  {reason}")
    print(
        f"peak memory: {most.sum() / _GIB:.2f} GiB resident, "
        f"{(memory.before - memory.least) / _GIB:.2f} GiB less available"
    )
    for role, size in most.items():
        divided = f"{memory.most[str(role)] / options.clients / _KIB:.1f}"
        a_client = f"{size / options.clients / _KIB:6.1f} KiB a client, {divided} with what is shared divided"
        print(f"  {role:12} {size / _GIB:6.2f} GiB  {a_client}")
    print("CPU after the ramp: " + ", ".join(f"{role} {used:.0f} %" for role, used in cpu.items()))
    if seconds > 5:
        print(
            "CPU of the ramp, ms a client that comes, heartbeats of those who are there with it: "
            + ", ".join(f"{role} {ms:.2f}" for role, ms in newcomer_ms.items())
        )
    good = (
        accounted == round(options.clients * 0.01) * 2
        and suspicions == 0
        and late_s < MOST_LATE * interval_s
        and bool(summary["sound"])
    )
    print(
        f"limits: all accounted for, none false, p99 below {MOST_LATE * interval_s:g} s, sound: "
        f"{'met' if good else 'MISSED'}"
    )
    kib = {role: size / options.clients / _KIB for role, size in memory.most.items()}
    keep(
        options.save,
        "scale" if options.interval == 30 else f"scale --interval {options.interval:g}",
        [
            Figure(f"{options.clients:,} clients, from start to report", took_s, "s"),
            Figure(
                "faults accounted for",
                accounted / (round(options.clients * 0.01) * 2),
                against="planned",
                least=1.0,
            ),
            Figure("false suspicions", float(suspicions), "", most=0.0),
            Figure("p99 lateness of heartbeats", late_s, "s", most=MOST_LATE * interval_s),
            Figure("sound", float(bool(summary["sound"])), "", least=1.0),
            *(
                Figure(f"memory of a client, {role}", size, "KiB", most=_MOST_KIB.get(role))
                for role, size in kib.items()
            ),
        ],
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
