"""`flatline targets` and `flatline target`: servers that somebody else wrote, and whether a target file is right."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.terminal import progress, say, show_table

if TYPE_CHECKING:
    from reference_server.errors import Exit
    from scenarios.target import Target

__all__ = ["register"]

target_app = typer.Typer(
    no_args_is_help=True, help="Work with the file of a server that somebody else wrote."
)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command("targets")(targets_command)
    app.add_typer(target_app, name="target")


def targets_command() -> None:
    """List the servers that are bundled as targets, and the dialects that clients can speak."""
    from harness.real.dialects import dialects
    from harness.real.targets.describe import lacking
    from scenarios.target_files import bundled_targets, load_target

    found = [load_target(name) for name in bundled_targets()]
    show_table(
        ("target", "what it is", "dialect", "law of silence", "witnesses", "here"),
        [
            (
                one.target,
                one.title,
                one.dialect_name,
                law_of(one),
                ", ".join(sorted(one.witnesses.milestones)),
                "; ".join(lacking(one)) or "ok",
            )
            for one in found
        ],
    )
    say("\nDialects (or FILE.py:CLASS of your own):")
    show_table(
        ("dialect", "what is said", "shown by"),
        [(one.name, one.summary, one.shown) for one in dialects().values()],
    )


def law_of(target: Target) -> str:
    """Its heartbeat in a few words."""
    heartbeat = target.heartbeat
    times = [
        f"{getattr(heartbeat, name):g} s" for name in ("interval", "timeout") if getattr(heartbeat, name)
    ]
    return f"{heartbeat.model} {' + '.join(times)}".strip()


@target_app.command("check")
def check_command(
    file: Annotated[str, typer.Argument(help="target file, or the name of a bundled one")] = "",
    root: Annotated[Path, typer.Option("--runs", help="folder of run directories")] = Path("runs"),
    speedup: Annotated[
        float | None,
        typer.Option(help="default: an interval takes two seconds, where the server can be told"),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="every bundled target, one after the other")] = False,
) -> None:
    """Start the server, let clients live, close, reset and freeze, and say what the file gets wrong."""
    from harness.real.errors import CannotRun
    from reference_server.errors import Exit
    from scenarios.target_files import bundled_targets, load_target

    if every == bool(file):
        say("error: name a target file or a bundled target, or give --all", "red")
        raise typer.Exit(Exit.BAD_INPUT)
    if not every:
        raise typer.Exit(_check(load_target(file), root, speedup))
    codes: dict[str, Exit] = {}
    for name in bundled_targets():
        say(f"\n{name}")
        try:
            codes[name] = _check(load_target(name), root, speedup)
        except CannotRun as error:
            say(f"SKIPPED: {error}", "red")
            codes[name] = error.exit_code
    good = sum(code is Exit.GOOD for code in codes.values())
    say(f"\n{good} of {len(codes)} bundled targets are as their files say")
    raise typer.Exit(max(codes.values()))


def _check(target: Target, root: Path, speedup: float | None) -> Exit:
    """Check one target and print what was found."""
    from harness.real.processes.children import end_on_sigterm
    from harness.studies.target_check import check_target_file

    with end_on_sigterm(), progress() as show:
        done = check_target_file(target, root, speedup, show)
    show_table(("", "check", "seen"), [(one.mark, one.what, one.seen) for one in done.findings])
    if dropped := [one.dropped for one in done.findings if one.dropped]:
        said = ", ".join(f"{name}: null" for name in dropped)
        say(f"write `{said}` under witnesses, or mend what it looks at: a run believes the file", "yellow")
    say(f"report: {done.report}")
    return done.exit_code
