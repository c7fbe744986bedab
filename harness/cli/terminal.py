"""What every command shares: the console, progress bars, and errors that are the user's to mend.

The modules of this folder load what a command needs when it runs: `--help` is there at once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from typer.core import TyperGroup

from reference_server.errors import Exit, FlatlineError

if TYPE_CHECKING:
    import pandas as pd
    from rich.progress import TaskID

    from harness.conclude import Outcome

__all__ = [
    "AllowUndecided",
    "AsJson",
    "Commands",
    "Group",
    "JUnit",
    "PolicyFile",
    "Summary",
    "asides",
    "duration_s",
    "finish",
    "in_a_folder",
    "progress",
    "say",
    "show_frame",
    "show_markdown",
    "show_table",
    "to_be_made",
    "warn",
]

AllowUndecided = Annotated[
    bool,
    typer.Option("--allow-undecided", help="exit 0 instead of 97 where too little was seen for a verdict"),
]

AsJson = Annotated[bool, typer.Option("--json", help="the verdict on standard output, for programs")]


def in_a_folder(file: Path | None) -> Path | None:
    """Check, before minutes of work are done for it, that a file can be written where an option wants it."""
    if file is not None and not file.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {file.parent}")
    if file is not None and (file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK)):
        raise typer.BadParameter(f"{file} is a folder, or may not be written; allowed: a file")
    return file


def to_be_made(folder: Path | None) -> Path | None:
    """Check, before minutes of work are done for it, that a folder is there, or can be made with those above it."""
    if folder is not None:
        there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise typer.BadParameter(f"{there} is no folder, or may not be written; allowed: a folder")
    return folder


JUnit = Annotated[
    Path | None,
    typer.Option(
        "--junit", callback=in_a_folder, help="also write the verdict there, as JUnit XML", show_default=False
    ),
]

Summary = Annotated[
    Path | None,
    typer.Option(
        "--summary",
        callback=in_a_folder,
        envvar="GITHUB_STEP_SUMMARY",
        show_envvar=True,
        help="also append the verdict there, as Markdown; in a job on GitHub it goes to the job's page by itself",
        show_default=False,
    ),
]

PolicyFile = Annotated[
    Path | None,
    typer.Option(
        "--policy",
        metavar="FILE",
        help="a policy file, as `flatline tune --output` writes it, takes the place of the scenario's `liveness`",
        show_default=False,
    ),
]

_PIPE_WIDTH = 240
_SENTENCE = 200  # characters, at most

asides = Console(stderr=True)
"""What is for people only: standard error."""


def duration_s(text: str, option: str) -> float:
    """Read a duration of the command line in seconds."""
    from reference_server.durations import parse_duration

    try:
        return float(parse_duration(text))
    except ValueError as error:
        raise typer.BadParameter(f"{option}: {error}") from error


def say(text: str, style: str | None = None) -> None:
    """Print a line for people on standard error, as it is: no markup, no emoji, no wrapping."""
    asides.print(text, style=style, markup=False, emoji=False, highlight=False, soft_wrap=True)


def warn(text: str) -> None:
    """Print a warning on standard error."""
    say(f"warning: {text}", "yellow")


def show_table(header: Iterable[str], rows: Iterable[Iterable[str]], width: int = _PIPE_WIDTH) -> None:
    """Print a table on standard output; what strangers have put into a cell moves no cursor.

    Args:
        header: of its columns.
        rows: a cell each.
        width: in characters, at most: a cell that is wider goes on in the next line.
    """
    from rich.table import Table

    from reference_server.session_log import without_controls

    table = Table(*header, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*("\n".join(map(without_controls, cell.split("\n"))) for cell in row))
    out = _results()
    out.print(table, markup=False, width=min(width, out.width))


def show_frame(table: pd.DataFrame) -> None:
    """Print a DataFrame on standard output, numbers to six digits."""
    rows = table.itertuples(index=False, name=None)
    show_table(
        map(str, table.columns),
        [[f"{v:.6g}" if isinstance(v, float) else str(v) for v in row] for row in rows],
    )


def show_markdown(text: str) -> None:
    """Print Markdown on standard output: rendered on a terminal, as it is into a file or a pipe."""
    out = _results()
    if out.is_terminal:
        from rich.markdown import Markdown

        out.print(Markdown(text))
    else:
        out.file.write(text if text.endswith("\n") else text + "\n")


def _results() -> Console:
    """Made anew each time: a console remembers the width and the file that it was made with."""
    out = Console()
    return out if out.is_terminal else Console(width=_PIPE_WIDTH)  # nothing is cut off in a pipe


def finish(
    outcome: Outcome,
    *,
    allow_undecided: bool = False,
    as_json: bool = False,
    junit: Path | None = None,
    summary: Path | None = None,
) -> NoReturn:
    """Print how a run came out and where its report is, and exit with its code.

    Args:
        outcome: as `conclude` gives it.
        allow_undecided: too little was seen for a verdict, and that is good enough: 97 becomes 0.
        as_json: the verdict as one JSON object instead.
        junit: also write it into this file, as JUnit XML.
        summary: also append it to this file, as Markdown.
    """
    exit_code = outcome.exit_code
    if exit_code is Exit.UNDECIDED and allow_undecided:
        exit_code = Exit.GOOD
    if as_json or junit is not None or summary is not None:
        from reports.run_tables import load_run
        from reports.verdict import as_junit, as_markdown, as_verdict

        tables = load_run(outcome.report.parent)
        if junit is not None:
            junit.write_text(as_junit(tables), encoding="utf-8")
        if summary is not None:
            with summary.open("a", encoding="utf-8") as file:
                file.write(as_markdown(tables))
        if as_json:
            print(json.dumps({**as_verdict(tables), "exit_code": exit_code}, indent=2, ensure_ascii=False))
    if not as_json:
        out = _results()
        out.print(outcome.headline, highlight=False, markup=False)
        for line in outcome.lines:
            out.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
        out.print(f"report: {outcome.report}", highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(exit_code)


@contextmanager
def progress() -> Iterator[Callable[[str, float], None]]:
    """Show how much of each phase is done and how long the rest takes; without a terminal, its name only."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=asides, disable=not asides.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def show(phase: str, fraction: float) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(phase, total=1.0)
                if not asides.is_terminal:
                    say(f"{phase} …")
            bars.update(tasks[phase], completed=fraction)

        yield show


class Group(TyperGroup):
    """Some commands under one name."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take the command that is named first; else the group's own options."""
        if (
            args and args[0] in self.commands
        ):  # no option of the group is there: to find that out loads pydantic
            ctx._protected_args, ctx.args = args[:1], args[1:]
            return args[1:]
        return super().parse_args(ctx, args)


class Commands(Group):
    """The group of all commands: an error that can be foreseen is printed without a traceback."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List each with the whole first sentence of its help."""
        rows = [(name, command.get_short_help_str(_SENTENCE)) for name, command in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, ctx: Any) -> Any:
        """Run the command that the arguments name, and exit with its error's code."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            say("interrupted", "red")
            raise typer.Exit(Exit.INTERRUPTED) from interrupt
        except FlatlineError as error:
            from harness.judge.thresholds import wrong_thresholds
            from scenarios.load import ScenarioError

            if isinstance(error, ScenarioError):
                error = error.with_more(wrong_thresholds(error.raw))  # all that is wrong, in one go
            say(f"error: {error}", "red")
            raise typer.Exit(error.exit_code) from error
        except OSError as error:
            if error.filename is None:  # not of a file that the user named, or may mend
                raise
            say(f"error: {error.filename}: {error.strerror}", "red")
            raise typer.Exit(Exit.BAD_INPUT) from error
        except ValueError as error:
            from reports.run_tables import TablesError

            if not isinstance(error, TablesError):
                raise
            say(f"error: {error}", "red")
            raise typer.Exit(error.exit_code) from error
