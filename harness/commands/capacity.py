"""`flatline capacity`: how many clients it carries, what gives way first, and what N million users need."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.calibrate import calibrated
from harness.capacity.search import Search, search
from harness.commands.terminal import errors, say
from harness.exits import Exit
from harness.real.processes import end_on_sigterm
from scenarios.load import load_scenario

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command("capacity")(capacity_command)


def capacity_command(
    scenario: Annotated[
        str, typer.Argument(help="its thresholds say what holds; clients and nodes are stepped")
    ] = "capacity",
    start: Annotated[int, typer.Option(min=1, help="clients of the first step")] = 500,
    maximum: Annotated[int, typer.Option("--max", min=1, help="clients of the last one")] = 8000,
    factor: Annotated[float, typer.Option(help="from one step to the next")] = 2.0,
    step: Annotated[int | None, typer.Option(min=1, help="add so many instead")] = None,
    resolution: Annotated[
        float, typer.Option(help="halve the gap until it is this share; 1: do not")
    ] = 0.15,
    nodes: Annotated[str, typer.Option(help="numbers of gateway nodes, as 1,2,4,8")] = "1",
    real: Annotated[bool, typer.Option("--real/--simulated", help="which engine")] = True,
    calibration: Annotated[
        Path | None, typer.Option(help="service times for --simulated, from `flatline calibrate`")
    ] = None,
    users: Annotated[str, typer.Option(help="users to plan for")] = "100000,1000000,5000000",
    speedup: Annotated[float | None, typer.Option(help="replace the scenario's speedup")] = None,
    connects_per_s: Annotated[
        float, typer.Option(min=1, help="clients come no faster than this, real seconds")
    ] = 200.0,
    redis: Annotated[
        str | None, typer.Option("--redis", help="Redis URL; default: our own")
    ] = None,
    root: Annotated[Path, typer.Option("--runs", help="folder of run directories")] = Path("runs"),
) -> None:
    """Step the load until a threshold breaks: the knee, how nodes scale, and a plan for N users."""
    changes = {} if speedup is None else {"speedup": speedup}
    with errors(), end_on_sigterm():
        loaded = load_scenario(scenario, **changes)
        if calibration is not None:
            loaded = calibrated(loaded, calibration)
        what = Search(
            nodes=_numbers(nodes, "--nodes"), start=start, maximum=maximum, factor=factor, step=step,
            resolution=resolution, real=real, users=_numbers(users, "--users"), redis_url=redis,
            connects_per_s=connects_per_s,
        )  # fmt: skip
        try:
            found = search(loaded, what, root, say)
        except ValueError as error:
            if type(error) is not ValueError:
                raise
            raise typer.BadParameter(str(error)) from error
    for line in found.lines:
        print(line)
    print(f"report: {found.report}")
    raise typer.Exit(Exit.INTERRUPTED if found.interrupted else Exit.GOOD)


def _numbers(text: str, option: str) -> tuple[int, ...]:
    try:
        numbers = tuple(sorted({int(part.replace("_", "")) for part in text.split(",")}))
    except ValueError:
        numbers = ()
    if not numbers or numbers[0] < 1:
        raise typer.BadParameter(f"{option} {text!r}; allowed: whole numbers above 0, as 1,2,4")
    return numbers
