"""`flatline capacity`: the knee for each number of nodes, the law over nodes, the plan, the report.

1. Step the load for each number of nodes until a threshold breaks, and halve the gap: steps.csv, written after each
   step.
2. Fit the scaling law over the knees, or say why they cannot tell: scaling.csv, law.csv.
3. Unit costs by the steps of the first number of nodes, and a plan for the users asked for: plan.csv.
4. Say all of it: capacity.json, report.html, report.md.

Ctrl-C between two steps goes on with 2: what was stepped is reported.

    holds   ●     ●        ●            ●  | knee
    breaks                                 |  ×        ×
            start ×factor  ×factor   bisection ◄──────── first break

The knee here is that of service levels: the largest load at which every threshold still held, with the smallest
at which one broke beside it. It is not a bend of a curve: that depends on how the axes are drawn.
Source of the definition: Gunther, Guerrilla Capacity Planning, 2007, chapter 4.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness.judge.thresholds import ThresholdError, check_thresholds
from harness.runs.directory import RunDir, new_run
from harness.studies.capacity.extrapolation import Assumptions, UnitCosts, plan, unit_costs
from harness.studies.capacity.scaling_law import FEWEST_POINTS, fit, reasons_against
from harness.studies.capacity.steps import Step, frame_of, run_step
from reference_server.errors import FlatlineError
from reports.capacity_page import build_capacity_report
from scenarios.clock import SCENARIO_TIME
from scenarios.schema import Scenario

__all__ = ["Found", "Knee", "Search", "find_knee", "search"]


_METHOD = (
    "knee of service levels: the load steps up until a threshold breaks, then the gap is halved "
    "(Gunther, Guerrilla Capacity Planning, 2007)"
)


@dataclass(frozen=True, slots=True)
class Search:
    """What is to be tried.

    Attributes:
        nodes: numbers of gateway nodes; a knee is found for each.
        start: clients of the first load.
        maximum: clients of the last load that is tried.
        factor: from one load to the next, above 1; not with ``step``.
        step: the same as a difference.
        resolution: halving ends when the gap is no more than this share of the load that holds; 1: none.
        real: which engine.
        users: to plan for.
        assumptions: of the plan.
        redis_url: the user's Redis; None: a private one.
        connects_per_s: clients come no faster than this, real seconds, so that a larger load is not a harder rush as
            well; the scenario's ramp is made longer for that.

    Raises:
        FlatlineError: loads that do not rise, or a resolution that is no share.
    """

    nodes: tuple[int, ...] = (1,)
    start: int = 500
    maximum: int = 8000
    factor: float | None = 2.0
    step: int | None = None
    resolution: float = 0.15
    real: bool = True
    users: tuple[int, ...] = (100_000, 1_000_000, 5_000_000)
    assumptions: Assumptions = field(default_factory=Assumptions)
    redis_url: str | None = None
    connects_per_s: float = 200.0

    def __post_init__(self) -> None:
        if not 1 <= self.start <= self.maximum or (self.step is not None and self.step < 1):
            raise FlatlineError(
                f"start {self.start}, maximum {self.maximum}, step {self.step}; allowed: 1 <= start <= maximum"
            )
        if self.step is None and (self.factor is None or self.factor <= 1):
            raise FlatlineError(f"factor {self.factor}; allowed: above 1")
        if not 0 < self.resolution <= 1:
            raise FlatlineError(f"resolution {self.resolution}; allowed: above 0, at most 1")

    def after(self, load: int) -> int:
        """The next load above one that holds."""
        onward = load + self.step if self.step is not None else round(load * (self.factor or 0.0))
        return min(self.maximum, max(load + 1, onward))


@dataclass(frozen=True, slots=True)
class Knee:
    """``holds``: the largest load that held, 0 where not even the first did. ``breaks``: the smallest that did
    not, None where everything up to the maximum held. The knee lies in [holds, breaks)."""

    holds: int
    breaks: int | None

    @property
    def is_bracketed(self) -> bool:
        """Whether a load that holds and one that breaks are both known."""
        return self.holds > 0 and self.breaks is not None

    def in_words(self) -> str:
        """The knee and how well it is known."""
        if self.breaks is None:
            return f"not reached: {self.holds:,} clients still hold"
        if not self.holds:
            return f"below {self.breaks:,} clients, the smallest load that was tried"
        return f"between {self.holds:,} clients, which hold, and {self.breaks:,}, which do not"


def find_knee(holds: Callable[[int], bool], what: Search) -> Knee:
    """Step the load up until it breaks, then bisect until the gap is small. Pure: a step is the caller's.

    A load that breaks is not tried again above: a step that breaks by chance makes the knee too small, never too
    large.

    Args:
        holds: runs one load and says whether every threshold held.
        what: the loads.
    """
    low, high = 0, what.start
    while holds(high):
        low, high = high, what.after(high)
        if low >= what.maximum:
            return Knee(low, None)
    while low and high - low > max(1.0, what.resolution * low):
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return Knee(low, high)


@dataclass(frozen=True, slots=True)
class Found:
    """What came of it: one sentence a line, and the report."""

    lines: tuple[str, ...]
    report: Path
    interrupted: bool


def search(
    scenario: Scenario, what: Search, root: Path, say: Callable[[str], None] = lambda _: None
) -> Found:
    """Find the knees and report.

    Args:
        scenario: its thresholds say what holds; clients and nodes are replaced at each step.
        what: which loads, which nodes, which users.
        root: folder of run directories; the steps are runs of their own in the new one.
        say: told about each step.

    Raises:
        RedisUnavailable: no Redis.
        ThresholdError: a threshold that cannot be checked, or a scenario that has none.
        FlatlineError: a first load without a fault, or a model whose loop takes no time.
    """
    if not scenario.thresholds:
        raise ThresholdError([f"{scenario.name}: no thresholds; allowed: one or more, or nothing can break"])
    check_thresholds(scenario)
    for fault in scenario.faults:
        if round(fault.share * what.start) < 1:
            raise FlatlineError(
                f"start {what.start}: {fault.share * 100:.3g} % of them is nobody, so {fault.label} would not happen; "
                f"allowed: --start {round(1 / fault.share)} or more"
            )
    if not what.real and not scenario.gateway.takes_time:
        raise FlatlineError(
            "the model's loop takes no time, so no load is too much; allowed: --calibration FILE (from "
            "`flatline calibrate`), or a scenario with gateway.heartbeat_service"
        )
    folder = new_run(root, f"capacity-{scenario.name}")
    steps: list[Step] = []
    frame_of(steps).to_csv(folder.table("steps"), index=False)
    knees: dict[int, Knee] = {}
    interrupted = False
    for nodes in what.nodes:

        def holds(clients: int, nodes: int = nodes) -> bool:
            step = run_step(
                _unhurried(scenario, clients, what),
                clients=clients,
                nodes=nodes,
                real=what.real,
                root=folder.path / "steps",
                redis_url=what.redis_url,
            )
            steps.append(step)
            frame_of(steps).to_csv(folder.table("steps"), index=False)
            say(_told(step))
            return step.holds

        try:
            knees[nodes] = find_knee(holds, what)
        except KeyboardInterrupt:
            interrupted = True
            break
    return _conclude(folder, scenario, what, frame_of(steps), knees, interrupted)


def _unhurried(scenario: Scenario, clients: int, what: Search) -> Scenario:
    clock = scenario.clock if what.real else SCENARIO_TIME
    ramp_s = max(scenario.ramp, clock.scenario_s(clients / what.connects_per_s))
    return scenario.model_copy(update={"ramp": ramp_s})


def _conclude(
    folder: RunDir,
    scenario: Scenario,
    what: Search,
    steps: pd.DataFrame,
    knees: dict[int, Knee],
    interrupted: bool,
) -> Found:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    bracketed = {n: knee for n, knee in knees.items() if knee.is_bracketed}
    scaling = pd.DataFrame({"nodes": list(bracketed), "clients": [k.holds for k in bracketed.values()]})
    scaling.to_csv(folder.table("scaling"), index=False)
    law_lines = _law(folder, bracketed, cores if what.real else None)
    first = steps[steps["nodes"] == what.nodes[0]] if len(steps) else steps
    interval_s = scenario.liveness.heartbeat_interval or math.nan
    costs = unit_costs(first, heartbeat_interval_s=interval_s) if len(first) else None
    # The model knows no processor, no memory and no bytes: there is nothing to plan from.
    planned = plan(costs, what.users, what.assumptions) if costs and what.real else pd.DataFrame()
    planned.to_csv(folder.table("plan"), index=False)
    knee_lines = [
        f"{n} node{'s' if n > 1 else ''}: {knee.in_words()}{_because(steps, n, knee)}"
        for n, knee in knees.items()
    ]
    cost_lines = _costs(costs, what.assumptions) if costs and what.real else []
    late = ("heartbeat_lateness", "p99")
    limits_s = [t.limit for t in check_thresholds(scenario) if (t.metric, t.aggregate) == late]
    content: dict[str, Any] = {
        "name": scenario.name,
        "engine": "real" if what.real else "simulated",
        "speedup": scenario.speedup,
        "heartbeat_interval_s": interval_s,
        "cores": cores,
        "thresholds": list(scenario.thresholds),
        "method": _METHOD,
        "knees": knee_lines,
        "scaling": law_lines,
        "costs": cost_lines,
        "assumptions": what.assumptions.lines(),
        "interrupted": interrupted,
        "bracketed": bool(bracketed) and len(bracketed) == len(what.nodes),
        "knee_clients": next((k.holds for k in knees.values() if k.holds), None),
        "lateness_limit_s": min(limits_s, default=None),
        "search": asdict(what),
    }
    folder.write_json(folder.path / "capacity.json", content)
    report = build_capacity_report(folder.path)
    return Found((*knee_lines, *law_lines, *cost_lines), report, interrupted)


def _law(folder: RunDir, knees: dict[int, Knee], cores: int | None) -> list[str]:
    """Fit over the knees that are bracketed; or the reasons why nothing can be told."""
    nodes = list(knees)
    against = reasons_against(nodes, cores)
    table = pd.DataFrame(columns=["nodes", "clients", "lo", "hi"])
    lines = []
    if len(set(nodes)) >= FEWEST_POINTS:
        law = fit(nodes, [float(knee.holds) for knee in knees.values()])
        table = law.curve(np.linspace(1, 2 * max(nodes), 60))
        lines = law.lines()
    table.to_csv(folder.table("law"), index=False)
    if against:
        lines.insert(0, "how nodes scale: cannot tell; " + "; ".join(against))
    return lines


def _costs(costs: UnitCosts, given: Assumptions) -> list[str]:
    per_core = costs.clients_per_core(given.busiest)
    per_gib = costs.clients_per_gib(given.memory_share, given.kernel_bytes)
    beat_us = costs.core_share.value * costs.heartbeat_interval_s * 1e6
    return [
        f"clients a core at T = {costs.heartbeat_interval_s:g} s, {given.busiest:.0%} busy: {_three(per_core)} "
        f"({beat_us:.0f} µs of processor a heartbeat, from {costs.core_share.n} steps)",
        f"clients a GiB, {given.memory_share:.0%} used, {given.kernel_bytes / 1024:g} KiB of kernel each: "
        f"{_three(per_gib)} ({costs.rss_bytes.value / 1024:.1f} KiB of process a client)",
        f"Redis: {costs.commands_per_session:.1f} commands and {costs.store_bytes_per_session:,.0f} bytes a session, "
        f"{costs.commands_per_s * 3600:.1f} commands an hour of a client that stays",
    ]


def _three(values: Sequence[float]) -> str:
    lo, middle, hi = values
    if not math.isfinite(middle):
        return "cannot tell"
    high = f"{hi:,.0f}" if math.isfinite(hi) else "no bound"
    return f"{middle:,.0f} (95 %: {lo:,.0f} to {high})"


def _because(steps: pd.DataFrame, nodes: int, knee: Knee) -> str:
    """Which threshold broke first above the knee, and what was short."""
    mine = steps[(steps["nodes"] == nodes) & (steps["clients"] == knee.breaks)]
    if mine.empty:
        return ""
    row = mine.iloc[-1]
    return f" ({'; '.join(part for part in (row['missed'], row['limit']) if part)})"


def _told(step: Step) -> str:
    held = "holds" if step.holds else f"breaks: {step.missed or step.limit}"
    return (
        f"{step.nodes} × {step.clients:,} clients: {step.heartbeats_per_s:,.0f} heartbeats/s, "
        f"p99 late {step.lateness_p99_s * 1e3:.0f} ms, handshake {step.handshake_p99_s * 1e3:.0f} ms, "
        f"gateway {step.cpu_percent:.0f} %, generator {step.generator_cpu_percent:.0f} %, "
        f"load {step.load_average:.1f}: {held}"
    )
