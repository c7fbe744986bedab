"""`flatline simulate | calibrate`: what-if in the model alone, and the model's service times from a real run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.terminal import (
    AllowUndecided,
    AsJson,
    JUnit,
    PolicyFile,
    Summary,
    duration_s,
    finish,
    in_a_folder,
    progress,
    say,
    show_frame,
    warn,
)

if TYPE_CHECKING:
    from scenarios.schema import Scenario

__all__ = ["register"]

Root = Annotated[Path, typer.Option("--runs", help="folder of run directories")]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command("simulate")(simulate_command)
    app.command("calibrate")(calibrate_command)


def simulate_command(
    scenario: Annotated[str, typer.Argument(help="built-in scenario or YAML file", show_default=False)],
    root: Root = Path("runs"),
    clients: Annotated[int | None, typer.Option(help="replace the scenario's number of clients")] = None,
    seed: Annotated[int | None, typer.Option(help="replace the scenario's seed")] = None,
    policy: PolicyFile = None,
    calibration: Annotated[
        Path | None, typer.Option(help="service times of a real gateway, from `flatline calibrate`")
    ] = None,
    replications: Annotated[
        int, typer.Option(min=1, help="runs with seeds of their own; above 1: intervals over them")
    ] = 1,
    warm_up: Annotated[
        str, typer.Option(help="after the ramp, not counted; with replications, as 60s")
    ] = "0s",
    allow_undecided: AllowUndecided = False,
    as_json: AsJson = False,
    junit: JUnit = None,
    summary: Summary = None,
) -> None:
    """Run a scenario in theory and simulation only: no sockets, no privileges, any size."""
    from harness.run import run
    from harness.studies.calibrate import calibrated
    from scenarios.load import load_scenario
    from scenarios.policies import scenario_under

    warm_up_s = duration_s(warm_up, "--warm-up")
    if warm_up_s and replications == 1:
        raise typer.BadParameter(
            "--warm-up: a single run counts all of it; allowed: with --replications above 1"
        )
    changes = {"clients": clients, "seed": seed}
    given = {key: value for key, value in changes.items() if value is not None}
    if policy is None:
        loaded = load_scenario(scenario, **given)
    else:
        loaded, notes = scenario_under(scenario, policy, **given)
        for note in notes:
            say(note)
    if calibration is not None:
        loaded = calibrated(loaded, calibration)
    if replications == 1:
        with progress() as show:
            engines = ("theory", "simulated")
            outcome = run(loaded, engines=engines, root=root, progress=show, warn=warn)
        finish(outcome, allow_undecided=allow_undecided, as_json=as_json, junit=junit, summary=summary)
    _replicate(loaded, replications, warm_up_s, root)


def _replicate(scenario: Scenario, count: int, warm_up_s: float, root: Path) -> None:
    from harness.runs.directory import new_run
    from harness.studies.replicate import Stopping, replicate
    from scenarios.load import dump_scenario

    with progress() as show:
        found = replicate(
            scenario,
            stopping=Stopping(count, count),
            warm_up_s=warm_up_s,
            progress=lambda done: show("replicate", done),
        )
    directory = new_run(root, f"{scenario.name}-replicated")
    directory.scenario.write_text(dump_scenario(scenario))
    found.save(directory)
    show_frame(found.table)
    say(f"written: {directory.table('replications')}")


def calibrate_command(
    run_name: Annotated[
        str, typer.Argument(metavar="RUN", help="a real run's directory, its name, or latest")
    ],
    output: Annotated[
        Path, typer.Option(callback=in_a_folder, help="YAML for `flatline simulate --calibration`")
    ] = Path("calibration.yaml"),
    root: Root = Path("runs"),
) -> None:
    """Estimate a gateway's service times, lag and round trips from a real run, and say how good the fit is."""
    from harness.runs.directory import find_run
    from harness.studies.calibrate import calibrate

    found = calibrate(find_run(run_name, root))
    for line in found.lines():
        typer.echo(line)
    output.write_text(found.to_yaml(), encoding="utf-8")
    say(f"written: {output}")
