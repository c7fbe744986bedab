"""`flatline capacity`: the knee for each number of nodes, the law over nodes, a lost node, the plan, the report.

1. Step the load for each number of nodes until a threshold breaks, and halve the gap: steps.csv, written after each
   step.
2. Give the load that the first number of nodes holds to one node more, and kill one of them: reconnects.csv.
3. Fit the scaling law over the knees, or say why they cannot tell: scaling.csv, law.csv.
4. Unit costs by the steps of the first number of nodes, and a plan for the users asked for: plan.csv.
5. Say all of it: capacity.json, report.html, report.md.

Ctrl-C between two steps goes on with 3: what was stepped is reported.

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
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness.judge.thresholds import ThresholdError, check_thresholds
from harness.real.engine import RealSetup, check_machine
from harness.runs.directory import RunDir, new_run
from harness.studies.capacity.extrapolation import (
    Assumptions,
    UnitCosts,
    in_words,
    plan,
    plan_rows,
    unit_costs,
)
from harness.studies.capacity.node_loss import NodeLoss, lose_a_node
from harness.studies.capacity.scaling_law import FEWEST_POINTS, fit, reasons_against
from harness.studies.capacity.steps import Step, frame_of, run_step
from reference_server.errors import Exit, FlatlineError
from reports.capacity_page import build_capacity_report
from scenarios.client_rules import Traffic
from scenarios.clock import SCENARIO_TIME
from scenarios.plan import make_plan
from scenarios.schema import Scenario

__all__ = ["Found", "Knee", "Search", "find_knee", "search"]


_METHOD = "load steps up until a threshold breaks, then the gap is halved (Gunther, Guerrilla Capacity Planning, 2007)"


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
        node_loss: whether a node is lost in one more step, under the load that the first of ``nodes`` holds.

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
    node_loss: bool = True

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
    not, None where everything up to the maximum held. The knee lies in [holds, breaks). ``unjudged``: the load at
    which the search ended without a word on the gateway, for the machine itself was late; else None."""

    holds: int
    breaks: int | None
    unjudged: int | None = None

    @property
    def is_bracketed(self) -> bool:
        """Whether a load that holds and one that breaks are both known."""
        return self.holds > 0 and self.breaks is not None

    def in_words(self) -> str:
        """What is known of it. Where nothing broke there is no knee, and none is spoken of."""
        if self.unjudged is not None:
            return (
                f"{self.holds:,} clients hold; whether {self.unjudged:,} do cannot be told, as this machine was late "
                "itself"
            )
        if self.breaks is None:
            return f"nothing broke up to {self.holds:,} clients, the highest load that was tried"
        if not self.holds:
            return f"{self.breaks:,} clients, the lowest load that was tried, do not hold"
        return f"the knee lies between {self.holds:,} clients, which hold, and {self.breaks:,}, which do not"


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
    """What came of it: one sentence a line, the plan with its header (empty: there is none), and the report.

    ``exit_code``: UNSOUND or UNDECIDED where no load held, which is why there is no plan.
    """

    lines: tuple[str, ...]
    plan: tuple[tuple[str, ...], ...]
    assumed: tuple[str, ...]
    report: Path
    interrupted: bool
    exit_code: Exit


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
        CannotRun: the machine refuses the first load.
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
            "the model's loop takes no time, so no load is too much; allowed: --calibration FILE (there is no default, "
            "as service times are a machine's own: `flatline run healthy`, then `flatline calibrate latest`), or a "
            "scenario with gateway.heartbeat_service"
        )
    if what.real:  # what this machine cannot do at all is no load that breaks
        first = scenario.model_copy(update={"clients": what.start})
        check_machine(make_plan(first), first, RealSetup(redis_url=what.redis_url))
    folder = new_run(root, f"capacity-{scenario.name}")
    steps: list[Step] = []
    frame_of(steps).to_csv(folder.table("steps"), index=False)
    knees: dict[int, Knee] = {}
    loss: NodeLoss | None = None
    interrupted = False

    def lose_one(nodes: int) -> NodeLoss | None:
        carried = knees[nodes].holds
        if not what.node_loss or scenario.target is not None or not carried:
            return None
        found = lose_a_node(
            scenario,
            carried=carried,
            nodes=nodes,
            real=what.real,
            root=folder.path / "steps",
            redis_url=what.redis_url,
            connects_per_s=what.connects_per_s,
        )
        if isinstance(found, NodeLoss):
            say(found.in_words())
            return found
        say(f"no node could be lost: {found.limit or 'nobody was on it'}")
        return None

    for nodes in what.nodes:

        def one(clients: int, nodes: int = nodes) -> Step:
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
            return step

        unjudged: set[int] = set()

        def holds(clients: int, one: Callable[[int], Step] = one, unjudged: set[int] = unjudged) -> bool:
            step = one(clients)
            if step.blames_the_machine:
                say("this machine was late itself, which says nothing of the gateway: the same load again")
                step = one(clients)
            if step.blames_the_machine:
                unjudged.add(clients)
            return step.holds

        try:
            knee = find_knee(holds, what)
            if knee.holds and knee.breaks in unjudged:
                knee = Knee(knee.holds, None, knee.breaks)
            knees[nodes] = knee
            if nodes == what.nodes[0]:
                loss = lose_one(nodes)
        except KeyboardInterrupt:
            interrupted = True
            break
    return _conclude(folder, scenario, what, frame_of(steps), knees, loss, interrupted)


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
    loss: NodeLoss | None,
    interrupted: bool,
) -> Found:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    bracketed = {n: knee for n, knee in knees.items() if knee.is_bracketed}
    scaling = pd.DataFrame({"nodes": list(bracketed), "clients": [k.holds for k in bracketed.values()]})
    scaling.to_csv(folder.table("scaling"), index=False)
    law_lines = _law(folder, bracketed, cores if what.real else None)
    given = what.assumptions
    first = steps[steps["nodes"] == what.nodes[0]]
    no_plan, exit_code = _no_plan(first, scenario, what)
    measured = first[first["sound"].astype(bool) & first["cpu_percent"].notna()]
    costs = unit_costs(measured, scenario, given) if len(measured) and not no_plan else None
    planned = plan(costs, what.users, given, scenario.reconnect) if costs else pd.DataFrame()
    planned.to_csv(folder.table("plan"), index=False)
    header = ["users who are connected at once", *(f"{n:,}" for n in what.users)]
    table = [header, *plan_rows(planned)] if len(planned) else []
    knee_lines = [
        f"{n} node{'s' if n > 1 else ''}: {knee.in_words()}{_because(steps, n, knee)}"
        for n, knee in knees.items()
    ]
    cost_lines = _costs(costs, scenario, given, what) if costs else []
    loss_lines = [loss.in_words()] if loss else []
    if loss:
        loss.reconnects.to_csv(folder.table("reconnects"), index=False)
    late = ("heartbeat_lateness", "p99")
    limits_s = [t.limit for t in check_thresholds(scenario) if (t.metric, t.aggregate) == late]
    content: dict[str, Any] = {
        "name": scenario.name,
        "engine": "real" if what.real else "simulated",
        "speedup": scenario.speedup,
        "heartbeat_interval_s": scenario.liveness.heartbeat_interval,
        "tls": scenario.speaks_tls,
        "traffic": scenario.traffic.model_dump(mode="json"),
        "cores": cores,
        "thresholds": list(scenario.thresholds),
        "method": _METHOD,
        "limits": knee_lines,
        "scaling": law_lines if len(what.nodes) > 1 else [],
        "costs": cost_lines,
        "node_loss": loss.record() if loss else None,
        "node_loss_lines": loss_lines,
        "plan": table,
        "plan_warnings": [*_too_few(costs), *_warnings(planned, scenario)] if costs else [],
        "no_plan": no_plan,
        "assumptions": given.lines(scenario.reconnect, of_a_model=not what.real),
        "interrupted": interrupted,
        "bracketed": bool(bracketed) and len(bracketed) == len(what.nodes),
        "broke": any(knee.breaks is not None for knee in knees.values()),
        "unjudged": any(knee.unjudged is not None for knee in knees.values()),
        "clients_held": next((k.holds for k in knees.values() if k.holds), None),
        "lateness_limit_s": min(limits_s, default=None),
        "search": asdict(what),
    }
    folder.write_json(folder.path / "capacity.json", content)
    report = build_capacity_report(folder.path)
    lines = (*knee_lines, *content["scaling"], *loss_lines, *cost_lines, *no_plan, *content["plan_warnings"])
    return Found(
        lines, tuple(map(tuple, table)), tuple(content["assumptions"]), report, interrupted, exit_code
    )


def _no_plan(first: pd.DataFrame, scenario: Scenario, what: Search) -> tuple[list[str], Exit]:
    """Why nothing can be planned from these loads, what to do, and the exit code; an empty list where one held."""
    if first["holds"].any():
        return [], Exit.GOOD
    lowest = what.start if first.empty else int(first["clients"].min())
    fewest = max((math.ceil(1 / fault.share) for fault in scenario.faults), default=1)
    fewer = max(fewest, lowest // 4)
    ways = [
        f"fewer clients (--start {fewer})"
        if fewer < lowest
        else "fewer clients, with a larger share of faults"
    ]
    if first.empty or not first["cpu_percent"].notna().any():
        return [f"no plan: no load was measured; what can help: {ways[0]}"], Exit.UNDECIDED
    if first["sound"].any():
        why = "the smallest load broke a threshold, and what a client costs under too much load is no cost to plan by"
        return [f"no plan: {why}; what can help: {ways[0]}"], Exit.UNDECIDED
    ways.append("a machine that does nothing else")
    if scenario.speedup > 1:
        ways.append(f"a slower pace (--speedup {max(1.0, scenario.speedup / 4):g})")
    why = "no load was sound: this machine was late itself, so the loads say nothing about the gateway"
    return [f"no plan: {why}; what can help: {', '.join(ways)}"], Exit.UNSOUND


def _too_few(costs: UnitCosts) -> list[str]:
    """Why a plan of real loads has no intervals."""
    if math.isfinite(costs.core_share.half):
        return []
    return [
        f"the plan has no intervals: {costs.core_share.n} of the loads could be measured, and three are needed "
        "(a smaller --start, or --factor)"
    ]


def _warnings(planned: pd.DataFrame, scenario: Scenario) -> list[str]:
    """Where a plan's storm is longer than the policy's patience: it then feeds itself."""
    patience_s = scenario.liveness.patience_s if scenario.liveness.heartbeat_interval else math.inf
    worst = planned["storm_back_s"].where(planned["storm_back_s_hi"].eq(math.inf), planned["storm_back_s_hi"])
    return [
        f"{users:,} users: after a node's death the others may be busy with logins for longer than the policy's "
        f"patience of {patience_s:g} s ({'for good' if math.isinf(back_s) else f'{back_s:.0f} s'}): healthy clients "
        f"would be thrown out, and log in again; take more nodes{_spread(row)}"
        for (_, row), users, back_s in zip(planned.iterrows(), planned["users"], worst, strict=True)
        if back_s > patience_s
    ]


def _spread(row: pd.Series[Any]) -> str:
    """The back-off by which those who come back are half of what the others can let in; empty where they can none."""
    taken = row["storm_taken_per_s_lo"] or row["storm_taken_per_s"]
    if not 0 < taken < math.inf:
        return ""
    over_s = math.ceil(2 * row["storm_clients"] / taken)
    return (
        f", or a longer back-off with full jitter: spread over {over_s:,} s (reconnect.backoff_base) at most "
        f"{math.ceil(row['storm_clients'] / over_s):,} a second come back, half of what the others can let in"
    )


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


def _costs(costs: UnitCosts, scenario: Scenario, given: Assumptions, what: Search) -> list[str]:
    steps = f"{costs.core_share.n} load{'s' if costs.core_share.n > 1 else ''}"
    per_core = costs.clients_per_core(given.busiest)
    per_gib = costs.clients_per_gib(given.memory_share, given.kernel_bytes)
    beat = "heartbeat" if scenario.traffic == Traffic() else "heartbeat with the messages of its interval"
    lines = [
        f"a core at {given.busiest:.0%} carries {in_words(*per_core)} clients at T = {costs.heartbeat_interval_s:g} s"
    ]
    if math.isfinite(costs.heartbeat_interval_s):
        beat_us = [share * costs.heartbeat_interval_s * 1e6 for share in costs.core_share.ends]
        lines[0] += f": {in_words(*beat_us)} µs of it a {beat}, from {steps}"
    login_ms = [cost_s * 1e3 for cost_s in costs.login_core_s.ends]
    if costs.login_core_s.n and costs.login_core_s.value > 0:
        lines.append(f"a login with its connection takes {in_words(*login_ms)} ms of a core")
    kib = [size / 1024 for size in costs.rss_bytes.ends]
    is_assumed = what.real and not costs.rss_bytes.n
    whose = " (assumed: what the gateway held before any came is not known)" if is_assumed else ""
    lines += [
        f"a GiB, {given.memory_share:.0%} of it used, carries {in_words(*per_gib)} clients: {in_words(*kib)} KiB of "
        f"the gateway each{whose}, and {given.kernel_bytes / 1024:g} KiB of the kernel",
        f"Redis: {in_words(*costs.commands_per_session.ends)} commands and "
        f"{in_words(*costs.store_bytes_per_session.ends)} bytes a session, and by theory "
        f"{costs.refreshes_per_s * 3600:.3g} commands an hour of a client that stays",
        f"network: {costs.wire_bytes_per_s:.3g} bytes a second of a client, both ways",
    ]
    return lines


def _because(steps: pd.DataFrame, nodes: int, knee: Knee) -> str:
    """Which threshold broke first above the knee, and what was short."""
    mine = steps[(steps["nodes"] == nodes) & (steps["clients"] == (knee.unjudged or knee.breaks))]
    if mine.empty:
        return ""
    row = mine.iloc[-1]
    return f" ({'; '.join(part for part in (row['missed'], row['limit']) if part)})"


def _told(step: Step) -> str:
    held = "holds" if step.holds else f"breaks: {step.missed or step.limit}"
    if step.blames_the_machine:
        held = step.limit
    parts = (
        (step.heartbeats_per_s, f"{step.heartbeats_per_s:,.0f} heartbeats/s"),
        (step.lateness_p99_s, f"p99 late {step.lateness_p99_s * 1e3:.0f} ms"),
        (step.handshake_p99_s, f"handshake {step.handshake_p99_s * 1e3:.0f} ms"),
        (step.cpu_percent, f"gateway {step.cpu_percent:.0f} %"),
        (step.generator_cpu_percent, f"generator {step.generator_cpu_percent:.0f} %"),
        (step.load_average, f"load of the machine {step.load_average:.1f}"),
    )
    measured = ", ".join(text for value, text in parts if value == value) or "not measured"
    return f"{step.nodes} × {step.clients:,} clients: {measured}: {held}"
