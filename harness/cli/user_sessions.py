"""`flatline analytics`: what the ledger says about its users, printed, and active users drawn.

`flatline audit`: do the gateways' memory, Redis and the ledger agree about who is logged in?
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from math import isinf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from harness.cli.terminal import say, show_frame, show_table, to_be_made
from reference_server.errors import Exit

if TYPE_CHECKING:
    import pandas as pd

    from harness.user_sessions.analytics import Analytics

__all__ = ["register"]

_RETENTION_DAYS = (1, 7, 30)
_DAYS_SHOWN = 14


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command("analytics")(analytics_command)
    app.command("audit")(audit_command)


def analytics_command(
    ledger: Annotated[str | None, typer.Option(help="URL or SQLite file; default: the latest run's")] = None,
    plot: Annotated[
        Path | None,
        typer.Option(callback=to_be_made, help="draw active users into this folder, as SVG and PNG"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="everything, for programs")] = False,
    root: Annotated[Path, typer.Option("--runs", help="folder of run directories")] = Path("runs"),
) -> None:
    """Session lengths, online time, active users, retention and addresses, from the durable ledger."""
    from sqlalchemy.exc import SQLAlchemyError

    from harness.runs.directory import find_run
    from harness.user_sessions.analytics import analyse, read_ledger
    from reference_server.ledger.rows import LedgerUnfit
    from reference_server.ledger.table import ledger_url, open_engine, shown_url

    where = ledger or str(find_run("latest", root).path / "ledger.db")
    if "://" not in where and not Path(where).exists():
        raise LedgerUnfit(f"{where}: no such ledger")
    url = ledger_url(where)
    engine = open_engine(url, reads_only=True)
    try:
        found = analyse(*read_ledger(engine))
    except SQLAlchemyError as error:
        raise LedgerUnfit(f"{where}: {getattr(error, 'orig', None) or error}") from error
    finally:
        engine.dispose()
    if as_json:
        text = orjson.dumps(found.as_dict(), option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY)
        sys.stdout.write(text.decode() + "\n")
    else:
        _show(found)
    if plot is not None:
        _draw(found, plot, f"Ledger {shown_url(url)}.")


def _show(found: Analytics) -> None:
    import pandas as pd

    from reports.numbers import seconds, share

    say(f"{found.sessions} sessions of {found.users} users; days are UTC")
    show_table(
        ("device", "sessions", "open", "median, s", "95 % interval", "p90, s", "p99, s", "mean of ended, s"),
        [
            (
                row["device"] or "unknown",
                str(row["sessions"]),
                str(row["open"]),
                seconds(row["p50_s"]),
                f"{seconds(row['p50_lo_s'])} – {_upper(row['p50_hi_s'])}",
                seconds(row["p90_s"]),
                seconds(row["p99_s"]),
                seconds(row["mean_s"]),
            )
            for row in _rows(found.lengths)
        ],
    )
    say(f"average online time of a user on an active day: {seconds(found.online_s_per_user_day)} s")
    daily = found.daily.tail(_DAYS_SHOWN).assign(
        day=lambda t: pd.to_datetime(t["day"]).dt.date, stickiness=lambda t: t["stickiness"].map(share)
    )
    show_frame(daily)
    kept = found.retention[found.retention["after_days"].isin(_RETENTION_DAYS)]
    show_table(
        ("retention after", "users", "back", "share", "95 % interval"),
        [
            (
                f"{row['after_days']} d",
                str(row["users"]),
                str(row["back"]),
                share(row["share"]),
                f"{share(row['lo'])} – {share(row['hi'])}",
            )
            for row in _rows(kept)
        ],
    )
    show_frame(found.addresses)


def _upper(bound_s: float) -> str:
    """An interval that the sample sets no upper bound to is open, not never."""
    from reports.numbers import seconds

    return "∞" if isinf(bound_s) else seconds(bound_s)


def _rows(table: pd.DataFrame) -> list[Mapping[Any, Any]]:
    return list(table.to_dict("records"))


def _draw(found: Analytics, folder: Path, caption: str) -> None:
    from reports.figures.active_users import active_users
    from reports.figures.data import NothingToDraw
    from reports.style import save

    try:
        svg, _ = save(active_users(found.daily, caption=caption), folder, "active_users")
    except NothingToDraw as nothing:
        say(str(nothing))
    else:
        say(f"drawn: {svg}")


def audit_command(
    run_name: Annotated[
        str, typer.Argument(metavar="RUN", help="whose gateways run now; as a rule of `flatline serve`")
    ] = "latest",
    http: Annotated[
        list[str] | None, typer.Option(help="HTTP API of each gateway, instead of a run's", metavar="URL")
    ] = None,
    redis: Annotated[str | None, typer.Option(help="Redis URL, with --http")] = None,
    prefix: Annotated[str, typer.Option(help="of the gateways' keys, with --http")] = "flatline:",
    ledger: Annotated[str | None, typer.Option(help="URL or SQLite file, with --http")] = None,
    token: Annotated[
        str,
        typer.Option(
            envvar="FLATLINE_OPERATOR_TOKEN", help="operator_token of gateways elsewhere", show_envvar=True
        ),
    ] = "",
    tls_ca: Annotated[
        str, typer.Option(help="PEM file of the CA to trust where the API speaks TLS; default: the system's")
    ] = "",
    grace_s: Annotated[
        float, typer.Option("--grace", help="what differs for so many seconds is a difference")
    ] = 2.0,
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
    root: Annotated[Path, typer.Option("--runs", help="folder of run directories")] = Path("runs"),
) -> None:
    """Compare memory, Redis and the ledger: exit 5 where they differ, each difference a row."""
    from harness.runs.directory import find_run
    from harness.user_sessions.audit import AuditTarget, audit, target_of_run
    from reference_server.ledger.table import ledger_url

    if http:
        target = AuditTarget(tuple(http), redis, prefix, ledger and ledger_url(ledger), token, tls_ca)
    else:
        target = target_of_run(find_run(run_name, root), tls_ca)
    found = audit(target, grace_s)
    if as_json:
        sys.stdout.write(orjson.dumps(found._asdict(), option=orjson.OPT_INDENT_2).decode() + "\n")
    elif found.differences:
        rows = [(one.kind, one.subject, one.sentence) for one in found.differences]
        show_table(("difference", "session or user", "what is there"), rows)
    looked_at = {"memory": target.http_urls, "Redis": target.redis_url, "ledger": target.ledger_url}
    compared = [name for name, there in looked_at.items() if there]
    kinds = Counter(one.kind for one in found.differences)
    verdict = ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items())) or "no difference"
    say(f"{', '.join(compared)}: {found.sessions} sessions, {verdict}", "red" if kinds else "green")
    raise typer.Exit(Exit.INCONSISTENT if kinds else Exit.GOOD)
