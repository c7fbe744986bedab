"""`flatline probe`: what a server does about silent clients, from its outside only."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from harness.cli.terminal import AsJson, duration_s, in_a_folder, progress, say, show_markdown

if TYPE_CHECKING:
    from harness.studies.probe import Probe

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command("probe")(probe_command)


def probe_command(
    url: Annotated[
        str, typer.Argument(help="ws:// or wss://HOST[:PORT]/PATH, with {client} where it wants a name")
    ],
    dialect: Annotated[
        str | None,
        typer.Option(
            help="as `flatline targets` lists them, FILE.py:CLASS, '{text: {…}}' or a YAML file; default: guessed"
        ),
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option(help="of the handshake, as 'Authorization: Bearer x'; may be repeated")
    ] = None,
    subprotocol: Annotated[str | None, typer.Option(help="default: the dialect's own")] = None,
    beat: Annotated[
        str | None, typer.Option(help="clients beat by themselves so often, as 20s; default: if they must")
    ] = None,
    clients: Annotated[int, typer.Option(min=10, help="how many fall silent and are revived")] = 200,
    within: Annotated[str, typer.Option(help="the longest silence that is tried, as 120s")] = "120s",
    silence: Annotated[
        Literal["cut", "freeze"] | None,
        typer.Option(help="how clients fall silent; default: cut, where the kernel lets us (root)"),
    ] = None,
    mine: Annotated[
        bool, typer.Option("--this-host-is-mine", help="load an address that is neither loopback nor private")
    ] = False,
    tls_ca: Annotated[
        Path | None, typer.Option("--tls-ca", help="wss: PEM file of the CA to trust; default: the system's")
    ] = None,
    seed: Annotated[int, typer.Option(help="of phases and moments")] = 1,
    output: Annotated[
        Path | None, typer.Option(callback=in_a_folder, help="write a target file there")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Learn a server's heartbeat from outside: who beats, what matters, when a dead client is noticed.

    Connects, listens, has clients fall silent and revives each at a moment of its own. Ends with a sentence, what lint
    says of it behind the boxes that there are profiles of, and, with --output, a target file. Exit codes: 0 measured,
    2 bad input or nobody let in, 3 healthy clients were ended, 4 this machine cannot, 97 too few answers, or the
    server went away, 130 interrupted (what was measured is printed).
    """
    from harness.studies.probe import probe

    with progress() as show:
        found = probe(
            url,
            dialect=dialect,
            headers=tuple(header or ()),
            subprotocol=subprotocol,
            beat_s=None if beat is None else duration_s(beat, "--beat"),
            clients=clients,
            within_s=duration_s(within, "--within"),
            how=silence,
            tls_ca=tls_ca,
            is_mine=mine,
            seed=seed,
            progress=show,
        )
    if output is not None and found.heard.clients["healthy"]:
        name = re.sub(r"[^a-z0-9_-]+", "-", output.stem.lower()).strip("-")
        output.write_text(
            found.target_file(name if name[:1].isalpha() else f"target-{name}"), encoding="utf-8"
        )
        say(f"written: {output}")
    if as_json:
        print(json.dumps(found.as_json(), indent=2, ensure_ascii=False))
    else:
        _print(found)
    raise typer.Exit(found.exit_code)


def _print(found: Probe) -> None:
    show_markdown("\n".join([f"**{found.sentence}**", "", *(f"- {line}" for line in found.lines)]))
    if found.heartbeat[0].model == "unknown":
        show_markdown("\nlint: nothing to check without a model of the heartbeat")
        return
    lines = []
    for one, boxes in found.lint_by_rule:
        behind = f" ({', '.join(boxes)})" if boxes else ""
        lines.append(f"- **{one.severity.value}** {one.rule}{behind}: {one.message}; {one.fix}")
    show_markdown(
        "\n".join(["", "lint, behind the boxes that there are profiles of:", *(lines or ["- nothing found"])])
    )
