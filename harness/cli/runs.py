"""`flatline runs | compare | baseline`: what has been run, and what is better or worse than before."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.terminal import Group, duration_s, say, show_markdown, show_table, to_be_made

__all__ = ["register"]

Root = Annotated[Path, typer.Option("--runs", help="folder of run directories")]

Baselines = Annotated[Path, typer.Option("--baselines", help="folder of baselines, to be committed")]

baseline_app = typer.Typer(
    cls=Group, no_args_is_help=True, help="Keep a good run, and compare later ones with it."
)
runs_app = typer.Typer(cls=Group, no_args_is_help=False, help="List, show or prune run directories.")


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(runs_app, name="runs", invoke_without_command=True)
    app.command("compare")(compare_command)
    app.add_typer(baseline_app, name="baseline")


@runs_app.callback(invoke_without_command=True)
def list_command(context: typer.Context, root: Root = Path("runs")) -> None:
    """List the runs: scenario, date, engines, verdict, size."""
    if context.invoked_subcommand is not None:
        return
    from harness.runs.list_and_prune import list_runs, table

    show_table(*table(list_runs(root)))


@runs_app.command("show")
def show_command(name: str, root: Root = Path("runs")) -> None:
    """Show one run: its verdict and where its report is."""
    from harness.runs.directory import find_run
    from harness.runs.list_and_prune import describe, table

    found = describe(find_run(name, root).path)
    show_table(*table([found]))
    say(found.headline)
    report = found.path / "report.md"
    if report.exists():
        show_markdown(report.read_text(encoding="utf-8"))


@runs_app.command("prune")
def prune_command(
    keep: Annotated[int | None, typer.Option(help="the newest so many stay")] = None,
    older_than: Annotated[str | None, typer.Option(help="younger runs stay, as 7d")] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="really delete; without it only say what would go")
    ] = False,
    root: Root = Path("runs"),
) -> None:
    """Delete old runs; the latest always stays."""
    from harness.runs.list_and_prune import prune
    from reports.numbers import size_bytes

    older_than_s = None if older_than is None else duration_s(older_than, "--older-than")
    done = prune(root, keep=keep, older_than_s=older_than_s, dry_run=not yes)
    for run in done.gone:
        say(f"{'deleted' if yes else 'would delete'} {run.name}")
    for run, reason in done.spared:
        say(f"spared {run.name}: {reason}")
    say(f"{len(done.gone)} runs, {size_bytes(done.freed_bytes)}; {len(done.kept)} stay")


def compare_command(
    runs: Annotated[list[str], typer.Argument(metavar="RUN RUN…", help="the baseline first")],
    different: Annotated[
        bool, typer.Option("--ignore-scenario-difference", help="compare though more than the policy differs")
    ] = False,
    partial: Annotated[
        bool, typer.Option("--allow-partial", help="compare what an interrupted run has measured")
    ] = False,
    strict: Annotated[bool, typer.Option(help="unknown is a failure, too")] = False,
    labels: Annotated[
        str,
        typer.Option(
            metavar="A,B",
            help="what charts call the runs, one a run; default: the settings that differ",
            show_default=False,
        ),
    ] = "",
    output: Annotated[
        Path | None,
        typer.Option(
            callback=to_be_made, help="write comparison.html, comparison.md, tables and figures there"
        ),
    ] = None,
    pdf: Annotated[
        bool,
        typer.Option(
            "--pdf", help="also write comparison.pdf there, printed by an installed Chromium or Chrome"
        ),
    ] = False,
    root: Root = Path("runs"),
) -> None:
    """Compare runs with the first one: exit 99 where detection got slower or healthy clients are dropped more."""
    from harness.print_pdf import find_browser, print_pdf
    from harness.runs.directory import find_run
    from harness.studies.compare.compare import compare
    from harness.studies.compare.page import markdown, save_comparison

    if pdf and output is None:
        raise typer.BadParameter("--pdf: prints comparison.html; allowed: with --output FOLDER")
    browser = find_browser() if pdf else ""
    comparison = compare(
        [find_run(name, root).path for name in runs],
        labels=[label.strip() for label in labels.split(",")] if labels else [],
        allow_different=different,
        allow_partial=partial,
    )
    show_markdown(markdown(comparison))
    if output is not None:
        page = save_comparison(comparison, output)[0]
        say(f"written: {output}")
        if pdf:
            say(f"printed: {print_pdf(page, browser)}")
    raise typer.Exit(comparison.exit_code(strict=strict))


@baseline_app.command("set")
def set_baseline_command(
    run: Annotated[str, typer.Argument(metavar="RUN", help="run directory, its name, or latest")],
    anyway: Annotated[bool, typer.Option("--anyway", help="though its verdict is not good")] = False,
    baselines: Baselines = Path("baselines"),
    root: Root = Path("runs"),
) -> None:
    """Keep the tables of a good run as the baseline of its scenario."""
    from harness.runs.directory import find_run
    from harness.studies.baseline import set_baseline

    say(f"kept: {set_baseline(find_run(run, root), baselines, anyway=anyway)}")


@baseline_app.command("check")
def check_baseline_command(
    run: Annotated[str, typer.Argument(metavar="RUN", help="run directory, its name, or latest")] = "latest",
    strict: Annotated[bool, typer.Option(help="unknown is a failure, too")] = False,
    baselines: Baselines = Path("baselines"),
    root: Root = Path("runs"),
) -> None:
    """Compare a run with the baseline of its scenario: exit 99 where it got worse, as `flatline compare`."""
    from harness.runs.directory import find_run
    from harness.studies.baseline import check_baseline
    from harness.studies.compare.page import markdown

    comparison = check_baseline(find_run(run, root), baselines)
    show_markdown(markdown(comparison))
    raise typer.Exit(comparison.exit_code(strict=strict))
