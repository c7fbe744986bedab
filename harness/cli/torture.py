"""`flatline torture`: random faults on a real cluster, until a history is found that must not be."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.terminal import say, show_table
from reference_server.errors import Exit

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("torture")(torture_command)


def torture_command(
    minutes: Annotated[float, typer.Option(min=0, help="no schedule begins after that")] = 5.0,
    seed: Annotated[int, typer.Option(min=0, help="of all schedules")] = 1,
    first: Annotated[int, typer.Option(min=1, help="begin with this schedule of the seed")] = 1,
    schedule: Annotated[
        Path | None,
        typer.Option(help="replay one schedule from a file that was written before", show_default=False),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="histories at a time [default: a core one]", show_default=False)
    ] = None,
    most_found: Annotated[int, typer.Option(min=1, help="stop after so many violated schedules")] = 3,
    root: Annotated[Path, typer.Option("--runs", help="folder of run directories")] = Path("runs"),
) -> None:
    """Random overlapping faults on a real cluster; a checker replays what its clients saw, a violation is shrunk."""
    from harness.real.processes.children import end_on_sigterm
    from harness.torture.schedule import KINDS, read_schedule
    from harness.torture.torture import abilities, replay, torture

    with end_on_sigterm():
        can = abilities()
        for name in sorted({kind.needs for kind in KINDS.values() if kind.needs} - can):
            kinds = ", ".join(one for one, kind in KINDS.items() if kind.needs == name)
            say(f"left out, without root or CAP_NET_ADMIN: {kinds}")
        if schedule is None:
            result = torture(
                seed, minutes, root, say, first=first, jobs=jobs or os.cpu_count() or 1, most_found=most_found
            )
        else:
            result = replay(read_schedule(schedule, can), root, say)
    counts: Counter[str] = result.faults + result.operations
    show_table(("what happened", "times"), [(kind, str(n)) for kind, n in sorted(counts.items())])
    for found in result.found:
        say(f"\nschedule {found.schedule.seed}, {len(found.shrunk.steps)} steps left: {found.folder}", "red")
        for one in found.violations:
            say(f"  {one.at_s:.2f} s  {one.kind}  {one.about}: {one.sentence}")
        say(f"  replay: flatline torture --schedule {found.file}")
    unsound = f", {result.unsound} histories unsound (the machine was too busy)" if result.unsound else ""
    print(f"{result.schedules} schedules, {len(result.found)} violated{unsound}")
    if result.interrupted:
        raise typer.Exit(Exit.INTERRUPTED)
    if result.found:
        raise typer.Exit(Exit.MISSED)
    raise typer.Exit(Exit.GOOD if result.schedules or not result.unsound else Exit.UNSOUND)
