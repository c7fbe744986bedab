"""`flatline init | examples | notebooks | locust`: a first file, files to begin from, Jupyter and Locust."""

from __future__ import annotations

import inspect
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.terminal import say
from reference_server.errors import Exit

__all__ = ["register"]

_ALL_OPTIONS = """
import harness.real.generator.locustfile, locust.argument_parser
locust.argument_parser.get_parser().print_help()
"""
_LOCUSTFILE = Path(__file__).parents[1] / "real" / "generator" / "locustfile.py"


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command("init")(init_command)
    app.command("examples")(examples_command)
    passed_on = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    app.command("locust", context_settings=passed_on)(locust_command)
    for_jupyter = {"allow_extra_args": True, "ignore_unknown_options": True}
    app.command("notebooks", context_settings=for_jupyter)(notebooks_command)


def init_command(
    server: Annotated[
        str | None,
        typer.Option(help="ours: the reference gateway under your times; or your server's ws://… URL"),
    ] = None,
    interval: Annotated[str | None, typer.Option(help="from one ping to the next, as 30s")] = None,
    timeout: Annotated[str | None, typer.Option(help="how long an answer may take, as 10s")] = None,
    failures: Annotated[int | None, typer.Option(min=1, help="unanswered pings that end it")] = None,
    output: Annotated[
        Path | None, typer.Option(help="the file; default: flatline.yaml or target.yaml")
    ] = None,
) -> None:
    """Ask four questions and write a first scenario, or the target file of a server of yours.

    Whatever is given as an option is not asked; without a terminal the defaults answer.
    """
    from harness.first_file import first_scenario, first_target
    from harness.real.network.silence import silence_available

    def ask(given: str | int | None, question: str, default: str) -> str:
        if given is not None or not sys.stdin.isatty():
            return str(default if given is None else given)
        return str(typer.prompt(question, default=default, err=True))

    where = ask(
        server, "Which server? `ours`, or the ws:// URL of yours, {client} where its user is named", "ours"
    )
    pings = ask(interval, "How often does it ping?", "30s")
    waits = ask(timeout, "How long may an answer take?", "10s")
    misses = ask(failures, "How many unanswered pings end a connection?", "3")
    if not misses.isdecimal() or misses == "0":
        raise typer.BadParameter(f"--failures {misses!r}; allowed: a whole number above 0")
    ours = where == "ours"
    if ours:
        text = first_scenario(pings, waits, int(misses), silence=silence_available().ok)
    else:
        text = first_target(where, pings, waits, int(misses))
    file = output or Path("flatline.yaml" if ours else "target.yaml")
    if file.exists():
        say(f"error: {file} is there already; allowed: --output with another name", "red")
        raise typer.Exit(Exit.BAD_INPUT)
    file.write_text(text, encoding="utf-8")
    print(f"written: {file}")
    if ours:
        print(f"next: flatline lint {file}; flatline simulate {file}; flatline run {file}")
    else:
        print(
            f"next: start your server; flatline target check {file}; flatline run frozen --target {file} --speedup 1"
        )


def examples_command(
    folder: Annotated[Path, typer.Argument(help="made for them")] = Path("flatline-examples"),
) -> None:
    """Copy the examples and notebooks that come with flatline, to run and to change."""
    from harness.first_file import copy_examples

    for name, what in copy_examples(folder).items():
        print(f"{folder / name}: {what}")
    print(f"an example: flatline run {folder}/examples/half_answer.yaml")
    print(f"the notebooks: flatline notebooks {folder}")


def notebooks_command(
    context: typer.Context,
    folder: Annotated[
        Path, typer.Argument(help="made for them, with the examples, unless it is there")
    ] = Path("flatline-examples"),
) -> None:
    """Open the notebooks in JupyterLab, with this Python as their kernel; needs the extra `notebooks`.

    Options that are not known here are Jupyter's: `flatline notebooks --no-browser`.
    """
    from importlib.util import find_spec

    from harness.first_file import copy_examples

    if missing := [name for name in ("jupyterlab", "ipykernel") if find_spec(name) is None]:
        say(
            f"error: {' and '.join(missing)} not installed beside flatline; allowed after "
            f"`{sys.executable} -m pip install jupyterlab ipykernel`",
            "red",
        )
        raise typer.Exit(Exit.MACHINE_CANNOT)
    told = list(context.args)
    if str(folder).startswith("-"):  # no folder was named: this is Jupyter's first option
        told, folder = [str(folder), *told], Path("flatline-examples")
    if not (folder / "notebooks").is_dir():
        copy_examples(folder)
    argv = [sys.executable, "-m", "jupyterlab", str(folder / "notebooks"), *told]
    print(" ".join(argv), flush=True)
    # A kernel `python3` that another environment has put into the user's folder would win otherwise.
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    os.execv(sys.executable, argv)


def locust_command(
    context: typer.Context,
    path: Annotated[bool, typer.Option("--path", help="print where our locustfile is, no more")] = False,
) -> None:
    """Run Locust with flatline's clients: `flatline locust -u 2000 -r 100 -t 5m`, with any of Locust's options.

    `--help-all` shows them all. Its web page is on this machine alone unless --web-host says otherwise.
    """
    if path:
        print(_LOCUSTFILE)
        return
    if {"-h", "--help"} & set(context.args):
        from harness.real.locust_options import help_text

        print(help_text(inspect.getdoc(locust_command) or ""), end="")
        return
    os.environ.setdefault("LOCUST_WEB_HOST", "127.0.0.1")
    argv = [sys.executable, "-m", "harness.real.generator", *context.args]
    if "--help-all" in context.args:  # Locust prints its own options before it has read a locustfile
        argv = [sys.executable, "-c", _ALL_OPTIONS]
    sys.stdout.flush()
    os.execv(sys.executable, argv)  # Ctrl-C and the exit code are Locust's own
