"""`flatline capacity | claims`: how many clients it carries, what N million users need, and what claims are worth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.terminal import progress, say, show_markdown, show_table, to_be_made
from reference_server.errors import Exit, unknown_name

if TYPE_CHECKING:
    from scenarios.schema import Scenario

__all__ = ["register"]

_FRAME_SERVICE_S = 2e-4  # of a client's frame in the reference gateway's loop; a real one takes it by itself


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command("capacity")(capacity_command)
    app.command("claims")(claims_command)


def capacity_command(
    scenario: Annotated[
        str, typer.Argument(help="its thresholds say what holds; clients and nodes are stepped")
    ] = "capacity",
    start: Annotated[int, typer.Option(min=1, help="clients of the first step")] = 500,
    maximum: Annotated[int, typer.Option("--max", min=1, help="clients of the last one")] = 8000,
    factor: Annotated[float, typer.Option(help="from one step to the next")] = 2.0,
    step: Annotated[int | None, typer.Option(min=1, help="add so many instead")] = None,
    resolution: Annotated[float, typer.Option(help="halve the gap until it is this share; 1: do not")] = 0.15,
    nodes: Annotated[str, typer.Option(help="numbers of gateway nodes, as 1,2,4,8")] = "1",
    real: Annotated[bool, typer.Option("--real/--simulated", help="which engine")] = True,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="service times for --simulated, from `flatline calibrate`; default: those of a small machine"
        ),
    ] = None,
    users: Annotated[str, typer.Option(help="users to plan for")] = "100000,1000000,5000000",
    node_cores: Annotated[
        int, typer.Option(min=1, help="of a node of the plan: a gateway process runs on each")
    ] = 1,
    node_gib: Annotated[float, typer.Option(min=0.5, help="memory of a node of the plan")] = 8.0,
    speedup: Annotated[float | None, typer.Option(help="replace the scenario's speedup")] = None,
    connects_per_s: Annotated[
        float, typer.Option(min=1, help="clients come no faster than this, real seconds")
    ] = 200.0,
    tls: Annotated[
        bool | None, typer.Option("--tls/--no-tls", help="clients speak TLS; default: as the scenario says")
    ] = None,
    client_sends: Annotated[
        str | None, typer.Option(help="each client sends a message so often on average, as 10s")
    ] = None,
    client_receives: Annotated[
        str | None, typer.Option(help="each client is sent a message so often on average")
    ] = None,
    message_bytes: Annotated[int, typer.Option(min=1, help="payload of such a message")] = 100,
    node_loss: Annotated[
        bool, typer.Option(help="one more step: one node too many gets the load that held, and one is killed")
    ] = True,
    redis: Annotated[str | None, typer.Option("--redis", help="Redis URL; default: our own")] = None,
    root: Annotated[Path, typer.Option("--runs", help="folder of run directories")] = Path("runs"),
) -> None:
    """How many clients does it carry, and what do N users need: nodes, Redis, bandwidth, and when a node dies.

    Steps the load until a threshold breaks. With --simulated it is the model that breaks, by the service times of a
    calibration; what TLS takes is then added to them as it was measured elsewhere.

    Where no load holds there is no plan: it exits with 3 where none was sound either, else with 97.
    """
    from harness.real.processes.children import end_on_sigterm
    from harness.studies.calibrate import ANOTHER_MACHINE, calibrated
    from harness.studies.capacity.extrapolation import Assumptions, with_tls_cost
    from harness.studies.capacity.find_knee import Search, search
    from reports.capacity_page import HOW_TO_READ_A_PLAN
    from scenarios.load import load_scenario, replaced

    changes = {} if speedup is None else {"speedup": speedup}
    with end_on_sigterm():
        loaded = load_scenario(scenario, **changes)
        if calibration is not None:
            loaded = calibrated(loaded, calibration)
        elif not real and not loaded.gateway.takes_time:
            loaded = calibrated(loaded, ANOTHER_MACHINE)
            say(
                "no --calibration: the service times are those of one core of a small virtual machine "
                f"({_took(loaded)}), good for an order of magnitude. "
                "Yours: flatline run capacity --real-only; flatline calibrate latest; then --calibration FILE"
            )
        if tls and not real and not loaded.network.tls:
            loaded = with_tls_cost(loaded)
        traffic: dict[str, Any] = {
            way: {"every": {"exponential": {"mean": often}}, "bytes": message_bytes}
            for way, often in (("to_gateway", client_sends), ("to_client", client_receives))
            if often is not None
        }
        asked: dict[str, Any] = {"traffic": traffic} if traffic else {}
        if client_sends is not None and not real and not loaded.traffic.service.mean_s:
            traffic["service"] = {"constant": _FRAME_SERVICE_S}
        if tls is not None:
            asked["network"] = {"tls": tls}
        if asked:
            loaded = replaced(loaded, "the command line", **asked)
        what = Search(
            nodes=_numbers(nodes, "--nodes"),
            start=start,
            maximum=maximum,
            factor=factor,
            step=step,
            resolution=resolution,
            real=real,
            users=_numbers(users, "--users"),
            assumptions=Assumptions(node_cores=node_cores, node_gib=node_gib),
            redis_url=redis,
            connects_per_s=connects_per_s,
            node_loss=node_loss,
        )
        found = search(loaded, what, root, say)
    for line in found.lines:
        print(line)
    if found.plan:
        print()
        show_table(found.plan[0], found.plan[1:])
        print(f"\nassumed: {'; '.join(found.assumed)}\n{HOW_TO_READ_A_PLAN}")
    print(f"report: {found.report}")
    raise typer.Exit(Exit.INTERRUPTED if found.interrupted else found.exit_code)


def _took(scenario: Scenario) -> str:
    gateway = scenario.gateway
    beat_s, login_s = gateway.heartbeat_service.mean_s, gateway.handshake_service.mean_s
    return f"{beat_s * 1e6:.0f} µs a heartbeat, {login_s * 1e3:.1f} ms a login"


def _numbers(text: str, option: str) -> tuple[int, ...]:
    try:
        numbers = tuple(sorted({int(part.replace("_", "")) for part in text.split(",")}))
    except ValueError:
        numbers = ()
    if not numbers or numbers[0] < 1:
        raise typer.BadParameter(f"{option} {text!r}; allowed: whole numbers above 0, as 1,2,4")
    return numbers


def claims_command(
    presets: Annotated[list[str] | None, typer.Option(help="which; may be repeated; default: all")] = None,
    faults: Annotated[
        list[str] | None, typer.Option(help="kinds of fault; may be repeated; default: all of the claims")
    ] = None,
    real: Annotated[
        bool, typer.Option("--real/--no-real", help="also run real clients (some minutes)")
    ] = True,
    clients: Annotated[int, typer.Option(min=10, help="of each preset's run")] = 100,
    speedup: Annotated[
        float, typer.Option(min=1, help="of real runs, at most; a quick preset goes slower")
    ] = 20.0,
    out: Annotated[
        Path, typer.Option(callback=to_be_made, help="folder for claims.csv, claims.html and the runs")
    ] = Path("runs/claims"),
    redis: Annotated[
        str | None, typer.Option("--redis", help="Redis URL; default: a private server of our own")
    ] = None,
) -> None:
    """Put the claims of the documented systems to the test: claimed, theory, simulated, real; a verdict a cell.

    A claim that does not hold is a finding: the exit code is 0.
    """
    from harness.real.engine import RealSetup
    from harness.real.processes.children import end_on_sigterm
    from harness.studies.claims.claim import load_claims
    from harness.studies.claims.experiment import run_claims
    from reference_server.presets import find_preset, load_presets
    from reports.claims_page import write_claims_page

    book = load_claims()
    with end_on_sigterm(), progress() as show:
        chosen = [find_preset(name).name for name in _split(presets) or load_presets()]
        kinds = _split(faults) or list(book.faults)
        if unknown := [kind for kind in kinds if kind not in book.faults]:
            say(f"error: {unknown_name(f'no claim is about {unknown[0]!r}', unknown[0], book.faults)}", "red")
            raise typer.Exit(Exit.BAD_INPUT)
        rows = run_claims(
            chosen,
            kinds,
            out,
            real=real,
            clients=clients,
            fastest=speedup,
            setup=RealSetup(redis_url=redis),
            progress=show,
        )
        page = write_claims_page(rows, out)
    show_markdown(page.with_suffix(".md").read_text(encoding="utf-8"))
    say(f"report: {page}")


def _split(values: list[str] | None) -> list[str]:
    return [name for value in values or () for name in value.split(",") if name]
