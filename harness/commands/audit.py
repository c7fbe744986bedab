"""`flatline audit`: do the gateways' memory, Redis and the ledger agree about who is logged in?"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import orjson
import typer

from harness.commands.terminal import errors, say, show_table
from harness.exits import Exit
from harness.rundir import find_run

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("audit")(audit_command)


def audit_command(
    run_name: Annotated[
        str,
        typer.Argument(metavar="RUN", help="whose gateways run now; as a rule of `flatline serve`"),
    ] = "latest",
    http: Annotated[
        list[str] | None,
        typer.Option(help="HTTP API of each gateway, instead of a run's", metavar="URL"),
    ] = None,
    redis: Annotated[str | None, typer.Option(help="Redis URL, with --http")] = None,
    prefix: Annotated[str, typer.Option(help="of the gateways' keys, with --http")] = "flatline:",
    ledger: Annotated[str | None, typer.Option(help="URL or SQLite file, with --http")] = None,
    settle_s: Annotated[
        float, typer.Option("--settle", help="what differs for so many seconds is a difference")
    ] = 2.0,
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
    root: Annotated[Path, typer.Option("--runs", help="folder of run directories")] = Path("runs"),
) -> None:
    """Compare memory, Redis and the ledger: exit 5 where they differ, each difference a row."""
    # SQLAlchemy takes a while to load: other commands do without it.
    from harness.audit_readers import AuditTarget, CannotAudit, audit, target_of_run
    from reference_server.ledger_table import ledger_url

    try:
        if http:
            target = AuditTarget(tuple(http), redis, prefix, ledger and ledger_url(ledger))
        else:
            with errors():
                target = target_of_run(find_run(run_name, root))
        found = audit(target, settle_s)
    except CannotAudit as error:
        say(f"error: {error}", "red")
        raise typer.Exit(Exit.MACHINE_CANNOT) from error
    if as_json:
        sys.stdout.write(orjson.dumps(asdict(found), option=orjson.OPT_INDENT_2).decode() + "\n")
    elif found.differences:
        rows = [(one.kind, one.subject, one.sentence) for one in found.differences]
        show_table(("difference", "session or user", "what is there"), rows)
    compared = [
        name
        for name, there in (
            ("memory", target.http_urls), ("Redis", target.redis_url), ("ledger", target.ledger_url),
        )
        if there
    ]  # fmt: skip
    kinds = Counter(one.kind for one in found.differences)
    verdict = ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items())) or "no difference"
    say(f"{', '.join(compared)}: {found.sessions} sessions, {verdict}", "red" if kinds else "green")
    raise typer.Exit(Exit.INCONSISTENT if kinds else Exit.GOOD)
