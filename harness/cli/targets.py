"""`flatline targets` and `flatline target`: servers that somebody else wrote, and whether a target file is right."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.terminal import Group, in_a_folder, progress, say, show_table

if TYPE_CHECKING:
    from harness.studies.target_check import TargetCheck
    from reference_server.errors import Exit
    from scenarios.target import Target

__all__ = ["register"]

target_app = typer.Typer(
    cls=Group, no_args_is_help=True, help="Work with the file of a server that somebody else wrote."
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
    save: Annotated[
        Path | None,
        typer.Option(
            callback=in_a_folder, help="keep what each target showed in this JSON file, beside what is there"
        ),
    ] = None,
) -> None:
    """Start the server, let clients live, close, reset and freeze, and say what the file gets wrong.

    A witness that misses known ends, or tells of them too late, is dropped with its reason.
    """
    import orjson

    from harness.real.errors import CannotRun
    from harness.studies.targets_compared import measured_row, skipped_row
    from reference_server.errors import Exit
    from scenarios.target_files import bundled_targets, load_target

    if every == bool(file):
        say("error: name a target file or a bundled target, or give --all", "red")
        raise typer.Exit(Exit.BAD_INPUT)
    codes: dict[str, Exit] = {}
    rows: dict[str, dict[str, Any]] = {}
    if save is not None and save.exists():
        rows = {row["target"]: row for row in orjson.loads(save.read_bytes())}
    for name in bundled_targets() if every else [file]:
        if every:
            say(f"\n{name}")
        target = load_target(name)
        try:
            done = _check(target, root, speedup)
            codes[name] = done.exit_code
            if save is not None:
                rows[target.target] = measured_row(target, done, root / "killed" / target.target)
        except CannotRun as error:
            if not every:
                raise
            say(f"SKIPPED: {error}", "red")
            rows.setdefault(target.target, skipped_row(target, str(error)))
            codes[name] = error.exit_code
        if save is not None:
            found = [rows[name] for name in sorted(rows)]
            save.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2) + b"\n")
    if every:
        good = sum(code == 0 for code in codes.values())
        say(f"\n{good} of {len(codes)} bundled targets are as their files say")
    raise typer.Exit(max(codes.values()))


def _check(target: Target, root: Path, speedup: float | None) -> TargetCheck:
    """Check one target and print what was found."""
    from harness.real.processes.children import end_on_sigterm
    from harness.studies.target_check import check_target_file, remember
    from reference_server.errors import Exit

    with end_on_sigterm(), progress() as show:
        done = check_target_file(target, root, speedup, show)
    if done.exit_code is Exit.GOOD and speedup is None:
        remember(target, done.dropped, root)
    _show(done)
    if done.dropped:
        said = ", ".join(f"{name}: null" for name in done.dropped)
        say(f"write `{said}` under witnesses, or mend what it looks at", "yellow")
    say(f"report: {done.report}")
    return done


def _show(done: TargetCheck) -> None:
    show_table(("", "check", "seen"), [(one.mark, one.what, one.seen) for one in done.findings])


def checked_before(target: Target, root: Path) -> Target:
    """The target without the witnesses that a check drops; the check is done once for a target file."""
    from harness.real.processes.children import end_on_sigterm
    from harness.studies.target_check import checked_once

    with end_on_sigterm(), progress() as show:
        return checked_once(target, root, show, _show)
