"""`flatline analytics`: what the ledger says about its users, printed and drawn."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from math import isinf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import pandas as pd
import typer
from matplotlib.figure import Figure

from harness.commands.terminal import errors, say, show_frame, show_table
from harness.exits import Exit
from harness.rundir import find_run
from reports.figures import NothingToDraw
from reports.numbers import seconds, share
from reports.style import save

if TYPE_CHECKING:
    from harness.analytics import Analytics

__all__ = ["register"]

_RETENTION_DAYS = (1, 7, 30)
_DAYS_SHOWN = 14


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("analytics")(analytics_command)


def analytics_command(
    ledger: Annotated[
        str | None, typer.Option(help="URL or SQLite file; default: the latest run's")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="draw four figures into this folder, as SVG and PNG")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="everything, for programs")] = False,
    root: Annotated[Path, typer.Option("--runs", help="folder of run directories")] = Path("runs"),
) -> None:
    """Session lengths, online time, active users, retention and addresses, from the durable ledger."""
    # SQLAlchemy takes a while to load: other commands do without it.
    from sqlalchemy.exc import SQLAlchemyError

    from harness.analytics import analyse, read_ledger
    from reference_server.ledger_rows import LedgerUnfit
    from reference_server.ledger_table import ledger_url, open_engine, shown_url

    with errors():
        where = ledger or str(find_run("latest", root).path / "ledger.db")
    path = None if "://" in where else Path(where)
    if path is not None and not path.exists():
        say(f"error: {path}: no such ledger", "red")
        raise typer.Exit(Exit.BAD_INPUT)
    try:
        url = ledger_url(where)
        engine = open_engine(url, reads_only=True)
        try:
            found = analyse(*read_ledger(engine))
        finally:
            engine.dispose()
    except (SQLAlchemyError, LedgerUnfit) as error:
        say(f"error: {where}: {getattr(error, 'orig', None) or error}", "red")
        raise typer.Exit(Exit.BAD_INPUT) from error
    if as_json:
        text = orjson.dumps(
            found.as_dict(), option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY
        )
        sys.stdout.write(text.decode() + "\n")
    else:
        _show(found)
    if plot is not None:
        _draw(found, plot, f"Ledger {shown_url(url)}.")


def _show(found: Analytics) -> None:
    say(f"{found.sessions} sessions of {found.users} users; days are UTC")
    show_table(
        ("device", "sessions", "open", "median, s", "95 % interval", "p90, s", "p99, s", "mean of ended, s"),
        [
            (
                row["device"] or "unknown", str(row["sessions"]), str(row["open"]), seconds(row["p50_s"]),
                f"{seconds(row['p50_lo_s'])} – {_upper(row['p50_hi_s'])}", seconds(row["p90_s"]),
                seconds(row["p99_s"]), seconds(row["mean_s"]),
            )
            for row in _rows(found.lengths)
        ],
    )  # fmt: skip
    say(f"average online time of a user on an active day: {seconds(found.online_s_per_user_day)} s")
    daily = found.daily.tail(_DAYS_SHOWN).assign(
        day=lambda t: pd.to_datetime(t["day"]).dt.date, stickiness=lambda t: t["stickiness"].map(share)
    )  # fmt: skip
    show_frame(daily)
    kept = found.retention[found.retention["after_days"].isin(_RETENTION_DAYS)]
    show_table(
        ("retention after", "users", "back", "share", "95 % interval"),
        [
            (
                f"{row['after_days']} d", str(row["users"]), str(row["back"]), share(row["share"]),
                f"{share(row['lo'])} – {share(row['hi'])}",
            )
            for row in _rows(kept)
        ],
    )  # fmt: skip
    show_frame(found.addresses)


def _upper(bound_s: float) -> str:
    """An interval that the sample sets no upper bound to is open, not never."""
    return "∞" if isinf(bound_s) else seconds(bound_s)


def _rows(table: pd.DataFrame) -> list[Mapping[Any, Any]]:
    return list(table.to_dict("records"))


def _draw(found: Analytics, folder: Path, caption: str) -> None:
    from reports.figures.active_users import active_users
    from reports.figures.addresses import addresses
    from reports.figures.retention import retention
    from reports.figures.session_lengths import session_lengths

    figures: dict[str, Callable[[], Figure]] = {
        "session_lengths": lambda: session_lengths(found.curves, found.lengths, caption=caption),
        "active_users": lambda: active_users(found.daily, caption=caption),
        "retention": lambda: retention(found.retention, caption=caption),
        "addresses": lambda: addresses(found.addresses, sessions=found.sessions, caption=caption),
    }
    for name, draw in figures.items():
        try:
            svg, _ = save(draw(), folder, name)
        except NothingToDraw as nothing:
            say(str(nothing))
        else:
            say(f"drawn: {svg}")
