"""Show a run while it goes on: on a terminal, and on a page where one was asked for.

From a `LiveRun`, which is told of phases by `harness.run` and reads the logs by itself, to lines that replace each
other. Without a terminal the phases are named, one line each, as for every other command. Counts nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from harness.cli.terminal import asides, progress, say

if TYPE_CHECKING:
    from harness.runs.directory import RunDir
    from scenarios.plan import Plan
    from scenarios.schema import Scenario

__all__ = ["live_view"]

_TIMES_A_SECOND = 4
_BAR = 28


@contextmanager
def live_view(
    scenario: Scenario, page: str | None, token: str
) -> Iterator[tuple[Callable[[str, float], None], Callable[[RunDir, Plan], None]]]:
    """Show a run as long as the context lasts; yields what to tell of phases, and of the run's directory.

    Args:
        scenario: that is run.
        page: where to serve the live page, as `[ADDRESS:]PORT`; None: nowhere.
        token: that the page is to ask for; empty: as `live_page` decides.

    Raises:
        MachineError: the page's address cannot be had.
    """
    if page is None and not asides.is_terminal:
        with progress() as show:
            yield show, lambda _directory, _plan: None
        return
    from harness.live.page import live_page, read_address
    from harness.live.run import LiveRun

    run = LiveRun()
    with ExitStack() as stack:
        if page is not None:
            try:
                address = read_address(page)
            except ValueError as error:
                raise typer.BadParameter(f"--live-page: {error}") from error
            say(f"live page: {stack.enter_context(live_page(run, address, token))}")
        stack.enter_context(run.looking())
        if asides.is_terminal:
            phases: dict[str, float] = {}

            def show(phase: str, done: float) -> None:
                phases[phase] = done
                run.progress(phase, done)

            stack.enter_context(
                Live(
                    get_renderable=lambda: _lines(phases, run.numbers()),
                    console=asides,
                    refresh_per_second=_TIMES_A_SECOND,
                )
            )
        else:
            named = stack.enter_context(progress())

            def show(phase: str, done: float) -> None:
                named(phase, done)
                run.progress(phase, done)

        def began(directory: RunDir, plan: Plan) -> None:
            run.follow(scenario.name, plan, directory.logs, scenario.clock)

        yield show, began


def _lines(phases: dict[str, float], now: dict[str, Any]) -> RenderableType:
    bars = Table.grid(padding=(0, 1))
    for phase, done in list(phases.items()):
        left = ""
        if done < 1:
            left = "under way" if now["left_s"] is None else f"{_clock(now['left_s'])} left"
        bar = ProgressBar(total=1.0, completed=done, width=_BAR)
        bars.add_row(phase, bar, f"{done:4.0%}", left if phase == now["phase"] else "")
    if not now["live"] and not now["injected"]:
        return bars
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    facts.add_row("live clients", f"{now['live']:,} of {now['clients']:,}")
    share = f" ({now['detected'] / now['injected']:.0%})" if now["injected"] else ""
    facts.add_row("faults", f"{now['injected']:,} injected, {now['detected']:,} detected{share}")
    ghosts = "nobody watches the store" if now["ghosts"] is None else f"{now['ghosts']:,}"
    facts.add_row("ghosts", ghosts)
    losses = Text(f"{now['losses']:,} of healthy clients", style="yellow" if now["losses"] else "")
    facts.add_row("losses", losses)
    if now["lag_s"]:
        lag = (f"{role} {lag_s * 1e3:,.0f}" for role, lag_s in sorted(now["lag_s"].items()))
        worst = max(now["worst_lag_s"].values(), default=0.0)
        facts.add_row("lag in ms", f"{', '.join(lag)}; largest so far {worst * 1e3:,.0f}")
    return Group(bars, facts)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
