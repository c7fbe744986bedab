"""`flatline claims`: what documents promise, beside theory, simulation and reality, a verdict for each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.claims import load_claims, put_to_the_test
from harness.commands.terminal import errors, progress, say, show_table
from harness.exits import Exit
from harness.real.engine import RealSetup
from harness.real.processes import end_on_sigterm
from reference_server.presets import find_preset, load_presets
from reports.claims_page import claims_table, write_claims_page

__all__ = ["register"]

_NOTES = [
    "Each preset was run once, with every fault in one mix. A claim holds where every fault that was seen, and "
    "the least and the largest time of them, lies within it, widened by the run's own ε. A verdict is reality's "
    "where there is one.",
    "A killed process is not silent: its kernel sends FIN, so it is seen at once where close detection acts on it. A "
    "send into a dead connection succeeds until TCP gives up.",
]


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command("claims")(claims_command)


def claims_command(
    presets: Annotated[
        list[str] | None, typer.Option(help="which; may be repeated; default: all")
    ] = None,
    faults: Annotated[
        list[str] | None,
        typer.Option(help="kinds of fault; may be repeated; default: all of the claims"),
    ] = None,
    real: Annotated[
        bool, typer.Option("--real/--no-real", help="also run real clients (some minutes)")
    ] = True,
    clients: Annotated[int, typer.Option(min=10, help="of each preset's run")] = 100,
    speedup: Annotated[
        float, typer.Option(min=1, help="of real runs, at most; a quick preset goes slower")
    ] = 20.0,
    out: Annotated[
        Path, typer.Option(help="folder for claims.csv, claims.html and the runs")
    ] = Path("runs/claims"),
    redis: Annotated[
        str | None, typer.Option("--redis", help="Redis URL; default: a private server of our own")
    ] = None,
) -> None:
    """Put the claims of the documented systems to the test: claimed, theory, simulated, real; a verdict a cell."""
    book = load_claims()
    with errors(), end_on_sigterm(), progress() as show:
        chosen = [find_preset(name).name for name in _split(presets) or load_presets()]
        kinds = _split(faults) or list(book.faults)
        if unknown := [kind for kind in kinds if kind not in book.faults]:
            say(
                f"error: no claim is about {', '.join(unknown)}; allowed: {', '.join(book.faults)}",
                "red",
            )
            raise typer.Exit(Exit.BAD_INPUT)
        rows = put_to_the_test(
            chosen, kinds, out, real=real, clients=clients, fastest=speedup,
            setup=RealSetup(redis_url=redis), progress=show,
        )  # fmt: skip
        page = write_claims_page(rows, out, _NOTES)
    for milestone in dict.fromkeys(rows["milestone"]):
        table = claims_table(rows, milestone)
        say(f"\n{table.title}", "bold")
        show_table(
            table.columns[:-1],
            [
                [cell.text + (f" ({cell.detail})" if cell.detail else "") for cell in row[:-1]]
                for row in table.rows
            ],
        )
    say(f"report: {page}")


def _split(values: list[str] | None) -> list[str]:
    return [name for value in values or () for name in value.split(",") if name]
