"""One scenario in, one report out. Open this file first: `run` numbers the steps, and each is one module.

Nothing is measured or judged here; this is the order in which things happen.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from harness.conclude import Outcome, conclude
from harness.events.log import write_log
from harness.judge.thresholds import check_thresholds
from harness.real.engine import RealSetup, bounded_patience, check_machine, run_real
from harness.real.errors import CannotRun
from harness.real.processes.children import ChildDied
from harness.runs.directory import new_run
from harness.runs.provenance import begin, finish
from harness.simulated import simulate
from harness.theory.fault_laws import give_up_late_s
from reports.run_tables import ENGINES
from scenarios.clock import SCENARIO_TIME, RunClock
from scenarios.faults import CustomFaultError
from scenarios.load import dump_scenario
from scenarios.plan import Plan, make_plan
from scenarios.schema import Scenario

__all__ = ["ENGINES", "Outcome", "Progress", "check_faults", "conclude", "run"]


Progress = Callable[[str, float], None]
"""Told the name of a phase and how much of it is done, 0 to 1."""


def run(
    scenario: Scenario,
    *,
    engines: tuple[str, ...] = ENGINES,
    root: Path = Path("runs"),
    setup: RealSetup | None = None,
    progress: Progress = lambda _phase, _done: None,
    warn: Callable[[str], None] = lambda _text: None,
) -> Outcome:
    """Run one scenario through the engines asked for, and report.

    1. Plan: who meets which fault, and when.
    2. Check what can be checked before anything starts: thresholds, faults, machine.
    3. Make the run directory and write down what is to happen.
    4. Simulated: the plan in a SimPy model.
    5. Real: the plan with Locust clients, sockets, Redis and the gateway.
    6. Conclude: theory, measuring, judging, reporting. `flatline report` does this step again.

    Ctrl-C in step 5 ends every child and goes on with step 6: what was measured is reported, marked
    partial. So does the death of a child in mid-run; the run is then unsound, and the report says why.

    Args:
        scenario: what is to happen.
        engines: any of :data:`ENGINES`; theory is always there.
        root: folder of run directories.
        setup: how to run for real.
        progress: told about each phase.
        warn: told what the machine can hardly do.

    Raises:
        ThresholdError: a threshold that cannot be checked.
        CustomFaultError: a fault of the user's own cannot be used.
        CannotRun: the machine refuses what the plan needs.
        RedisUnavailable: no Redis.
        ChildDied: a process of the real run ended before any client began.
    """
    plan = make_plan(scenario)
    check_thresholds(scenario)
    check_faults(plan, engines)
    if "real" in engines:
        for warning in check_machine(plan, scenario, setup):
            warn(warning)

    directory = new_run(root, scenario.name)
    directory.scenario.write_text(dump_scenario(scenario))
    plan.save(directory.plan)
    begin(directory, scenario, plan, engines, setup)

    if "simulated" in engines:
        # Beside a real run it simulates that run.
        model = _at_speedup(scenario, scenario.clock if "real" in engines else SCENARIO_TIME)
        events = simulate(model, plan, progress=lambda done: progress("simulate", done))
        write_log(directory.log("simulation"), events)

    if "real" in engines:
        try:
            run_real(scenario, plan, directory, setup=setup, progress=lambda done: progress("real", done))
        except KeyboardInterrupt:
            finish(directory, "partial")
            return conclude(directory, progress)
        except (ChildDied, CannotRun) as error:
            if not directory.client_logs():
                raise
            finish(directory, "partial", broke_off=str(error).partition(";")[0])
            return conclude(directory, progress)
    finish(directory, "complete")
    return conclude(directory, progress)


def _at_speedup(scenario: Scenario, clock: RunClock) -> Scenario:
    """Return what the model simulates: round trips and the gateway's work are slower beside times that shrink."""
    policy = bounded_patience(scenario.liveness, clock)
    late_s = give_up_late_s(policy.tcp_user_timeout or 0.0, scenario.network, clock)
    network = scenario.network.model_copy(update={"give_up_lag": late_s})
    seen = {"network": network.seen_at(clock), "gateway": scenario.gateway.seen_at(clock), "liveness": policy}
    return scenario.model_copy(update=seen)


def check_faults(plan: Plan, engines: Collection[str]) -> None:
    """Return if every engine asked for can do every fault of a plan.

    Raises:
        CustomFaultError: a fault of the user's own is not there, is no fault, or lacks a half.
    """
    for fault in {(one.fault, one.kind): one for one in plan.faults}.values():
        does, name = fault.behaviour, type(fault.behaviour).__name__
        if "real" in engines and not does.is_real():
            raise CustomFaultError(
                fault.fault, f"{name} has no method `real`; allowed: write it, or use `flatline simulate`"
            )
        if "simulated" in engines and not does.is_simulated():
            raise CustomFaultError(
                fault.fault,
                f"{name} has no method `simulated`; allowed: write it, or use `flatline run --real-only`",
            )
