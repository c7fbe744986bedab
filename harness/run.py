"""One scenario in, one report out. Open this file first: `run` numbers the steps, and each is one module.

Nothing is measured or judged here; this is the order in which things happen.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from harness.abort_on_fail import EarlyEnd, ThresholdFailed
from harness.conclude import Outcome, conclude
from harness.events.log import write_log
from harness.judge.thresholds import check_thresholds
from harness.real.engine import TCP_GIVE_UP_S, RealSetup, bounded_patience, check_machine, fidelity, run_real
from harness.real.errors import CannotRun
from harness.real.processes.children import ChildDied
from harness.real.targets.describe import versions_of
from harness.runs.directory import RunDir, new_run
from harness.runs.provenance import begin, finish
from harness.simulated import simulate
from harness.theory.layer_laws import give_up_late_s
from reference_server.presets import find_preset
from reports.run_tables import ENGINES
from scenarios.clock import SCENARIO_TIME, RunClock
from scenarios.faults import CustomFaultError
from scenarios.load import dump_scenario
from scenarios.plan import Plan, make_plan
from scenarios.schema import Scenario

__all__ = ["ENGINES", "Outcome", "Progress", "check_faults", "conclude", "prepare", "run", "run_engines"]


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
    began: Callable[[RunDir, Plan], None] = lambda _directory, _plan: None,
) -> Outcome:
    """Run one scenario through the engines asked for, and report.

    1. Plan: who meets which fault, and when.
    2. Check what can be checked before anything starts: thresholds, faults, machine.
    3. Make the run directory and write down what is to happen.
    4. Simulated: the plan in a SimPy model.
    5. Real: the plan with Locust clients, sockets, Redis and the gateway.
    6. Conclude: theory, measuring, judging, reporting. `flatline report` does this step again.

    Ctrl-C in step 5 ends every child and goes on with step 6: what was measured is reported, marked
    partial. So does the death of a child in mid-run; the run is then unsound, and the report says why. A threshold
    with `abort_on_fail` that has failed ends step 5 as well.

    Args:
        scenario: what is to happen.
        engines: any of :data:`ENGINES`; theory is always there.
        root: folder of run directories.
        setup: how to run for real.
        progress: told about each phase.
        warn: told what the machine can hardly do.
        began: told the run directory and the plan, once they are there.

    Raises:
        ThresholdError: a threshold that cannot be checked.
        CustomFaultError: a fault of the user's own cannot be used.
        CannotRun: the machine refuses what the plan needs.
        RedisUnavailable: no Redis.
        ChildDied: a process of the real run ended before any client began.
    """
    directory, plan = prepare(scenario, engines, root, setup, warn)
    began(directory, plan)
    try:
        run_engines(scenario, plan, directory, engines, setup, progress)
    except KeyboardInterrupt:
        pass
    except (ChildDied, CannotRun):
        if not directory.client_logs():
            raise
    return conclude(directory, progress)


def prepare(
    scenario: Scenario,
    engines: tuple[str, ...],
    root: Path,
    setup: RealSetup | None = None,
    warn: Callable[[str], None] = lambda _text: None,
) -> tuple[RunDir, Plan]:
    """Do steps 1 to 3 of `run`, whose arguments these are: nothing is begun that cannot be run.

    Raises:
        ThresholdError, CustomFaultError, CannotRun: as `run`; there is no run directory then.
    """
    plan = make_plan(scenario)
    for sentence in too_late(plan):
        warn(sentence)
    check_thresholds(scenario)
    check_faults(plan, engines)
    if "real" in engines:
        for warning in check_machine(plan, scenario, setup):
            warn(warning)
    directory = new_run(root, scenario.name)
    directory.scenario.write_text(dump_scenario(scenario))
    plan.save(directory.plan)
    begin(directory, scenario, engines, _how(scenario, plan, engines, setup or RealSetup()))
    return directory, plan


def run_engines(
    scenario: Scenario,
    plan: Plan,
    directory: RunDir,
    engines: Collection[str],
    setup: RealSetup | None = None,
    progress: Progress = lambda _phase, _done: None,
) -> None:
    """Do steps 4 and 5 of `run` in a run directory that `prepare` has made.

    Raises:
        KeyboardInterrupt, CannotRun, RedisUnavailable, ChildDied: in the real run; run.json says so.
    """
    if "simulated" in engines:
        # Beside a real run it simulates that run.
        model = _at_pace(scenario, scenario.clock if "real" in engines else SCENARIO_TIME)
        events = simulate(model, plan, progress=lambda done: progress("simulate", done))
        write_log(directory.log("simulation"), events)
    if "real" in engines:
        early = EarlyEnd(directory, scenario)

        def tell(done: float) -> None:
            progress("real", done)
            early.look()

        progress("real", 0.0)
        try:
            run_real(scenario, plan, directory, setup=setup, progress=tell)
        except KeyboardInterrupt:
            finish(directory, "partial")
            raise
        except ThresholdFailed as failed:
            finish(directory, "partial", aborted_by=str(failed))
            return
        except (ChildDied, CannotRun) as error:
            finish(directory, "partial", broke_off=str(error).partition(";")[0])
            raise
        finally:
            early.close()
    finish(directory, "complete")


def too_late(plan: Plan) -> Iterator[str]:
    """Say which faults and incidents cannot take effect, or be noticed, because the run ends before."""
    for what, items in (
        ("faults", [(one.fault, one.at_s) for one in plan.faults]),
        ("incidents", [(one.kind, one.at_s) for one in plan.incidents]),
    ):
        for label in dict.fromkeys(label for label, _ in items):
            times = [at_s for one, at_s in items if one == label]
            late = [at_s for at_s in times if at_s >= plan.horizon_s]
            if late:
                yield (
                    f"{len(late)} of {len(times)} {what} {label} cannot take effect: the run ends at "
                    f"{plan.horizon_s:g} s, and they are due from {min(late):g} s on"
                )


def _how(scenario: Scenario, plan: Plan, engines: Collection[str], setup: RealSetup) -> dict[str, Any]:
    """Return what run.json says of how the real engine ran: all of it nothing where there was none."""
    real, preset = "real" in engines, setup.gateway_preset
    override = setup.gateway_policy or (find_preset(preset).policy if preset else None)
    notes = [f"{sentence}." for sentence in too_late(plan)]
    if real and not scenario.clock.is_real_time:
        notes.append(
            f"The real run divided every time but round trips by {scenario.speedup:g}; all results are in "
            "scenario time."
        )
        if scenario.liveness.tcp_user_timeout is None and scenario.target is None:
            notes.append(
                "TCP's own patience cannot be sped up: each socket of the gateway was bounded by "
                f"TCP_USER_TIMEOUT = {TCP_GIVE_UP_S:g} s / {scenario.speedup:g} = "
                f"{scenario.clock.real_s(TCP_GIVE_UP_S):.1f} s."
            )
    if real and scenario.target is not None:
        notes.append(
            f"The server is {scenario.target.title or scenario.target.target}, unchanged; liveness and detector of the "
            "scenario are those of its target file."
        )
    if setup.target_told is not None:
        notes.append("The server was told other times than its target file says.")
    told = override and override.model_dump(mode="json") | ({"preset": preset} if preset else {})
    return {
        "network": setup.network if real else "loopback",
        "fidelity": fidelity(plan, setup, scenario.network) if real else [],
        "notes": notes,
        "negative_control": told
        or (setup.target_told and setup.target_told.heartbeat.model_dump(mode="json")),
        **_about_target(scenario),
    }


def _about_target(scenario: Scenario) -> dict[str, Any]:
    """What run.json says of a server that is not ours."""
    if (target := scenario.target) is None:
        return {}
    command = list(target.start.command) if target.start is not None else []
    return {
        "target": {
            "name": target.target,
            "title": target.title,
            "command": command,
            "dialect": target.dialect_name,
            "witnesses": target.witnesses.model_dump(mode="json"),
            "versions": versions_of(target),
        }
    }


def _at_pace(scenario: Scenario, clock: RunClock) -> Scenario:
    """Return what the model simulates: round trips and the gateway's work are slower beside times that shrink."""
    if scenario.target is not None:
        return scenario.model_copy(update={"network": scenario.network.seen_at(clock)})
    policy = bounded_patience(scenario.liveness, clock)
    late_s = give_up_late_s(policy.tcp_user_timeout or 0.0, scenario.network, clock)
    network = scenario.network.model_copy(update={"give_up_lag": late_s})
    seen = {"network": network.seen_at(clock), "gateway": scenario.gateway.seen_at(clock), "liveness": policy}
    seen |= {"traffic": scenario.traffic.seen_at(clock)}
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
