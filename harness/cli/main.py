"""The `flatline` command: reads arguments, shows progress, prints verdicts. Decides nothing itself.

The main job is here; the other modules of this folder hold the other commands.
"""

from __future__ import annotations

import json
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from harness.cli import (
    catalogue,
    policy,
    probe,
    runs,
    simulate,
    start,
    studies,
    targets,
    torture,
    user_sessions,
)
from harness.cli.terminal import (
    AllowUndecided,
    AsJson,
    Commands,
    JUnit,
    PolicyFile,
    Summary,
    finish,
    progress,
    say,
    show_table,
    warn,
)
from harness.real.network import NetworkKind
from reference_server.session_log import LogFormat, LogLevel

if TYPE_CHECKING:
    from pydantic import BaseModel

    from harness.doctor import Check
    from harness.real.engine import RealSetup
    from reference_server.liveness.heartbeat_policy import LivenessPolicy
    from scenarios.schema import Scenario

__all__ = ["main"]

_DOCTOR_WIDTH = 98  # a terminal, or a mail; what is longer goes on in the next line

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain: boxes would take as long as all the rest of a `--help`
    help="How long until your gateway knows that a WebSocket client has died?\n\n"
    "Exit codes: 0 good, 2 bad input, 3 unsound run, 4 this machine cannot, 5 an audit found differences, "
    "97 too little was seen for a verdict, 99 thresholds missed, healthy clients lost or engines disagree, "
    "130 interrupted (the report of what was measured is still written).",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"flatline {version('flatline')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="say which version this is"),
    ] = False,
) -> None:
    """Take the options of flatline itself."""


ScenarioName = Annotated[str, typer.Argument(help="built-in scenario or YAML file", show_default=False)]
Root = Annotated[Path, typer.Option("--runs", help="folder of run directories")]
Redis = Annotated[str | None, typer.Option("--redis", help="Redis URL; default: a private server of our own")]
Clients = Annotated[int | None, typer.Option(help="replace the scenario's number of clients")]
Seed = Annotated[int | None, typer.Option(help="replace the scenario's seed")]
Speedup = Annotated[float | None, typer.Option(help="replace the scenario's speedup of real runs")]
NegativeControl = Annotated[
    list[str] | None,
    typer.Option(
        "--negative-control",
        metavar="KEY=VALUE",
        help="negative control: the gateway alone gets this policy value, as max_failures=2; "
        "the agreement must then turn red",
    ),
]

NetworkOf = Annotated[
    NetworkKind,
    typer.Option(
        "--network",
        help="netns-nat: clients, NAT and gateway in network namespaces of their own, and nat_timeout by "
        "conntrack's real timeouts (root, Linux, nftables, iproute2); nginx, haproxy: a real one before the "
        "gateway is the scenario's network.nat",
    ),
]

Workers = Annotated[
    int | None,
    typer.Option(min=1, help="generator processes on this machine; default: as many as the clients need"),
]
GatewayNodes = Annotated[
    int | None, typer.Option("--nodes", min=1, help="replace the scenario's gateway.nodes")
]

Hosts = Annotated[
    int,
    typer.Option(
        min=0,
        help="drive it from so many Locust workers on other hosts, and wait for them; start each by "
        "`flatline locust --worker --master-host ADDRESS`",
    ),
]
Address = Annotated[
    str,
    typer.Option(
        help="where --hosts reach this one: gateway and Locust's master then listen on all "
        "addresses, without encryption: on trusted networks only"
    ),
]
GatewayPreset = Annotated[
    str | None,
    typer.Option(help="negative control: the gateway alone is this preset, see `flatline presets`"),
]


LivePage = Annotated[
    str | None,
    typer.Option(
        "--live-page",
        metavar="[ADDRESS:]PORT",
        help="serve a page with the run's numbers while it goes on, and /metrics for Prometheus; port 0: any; "
        "loopback unless an address is given, which then asks for a token; without encryption",
        show_default=False,
    ),
]
LiveToken = Annotated[
    str,
    typer.Option(
        "--live-token",
        envvar="FLATLINE_LIVE_TOKEN",
        show_envvar=True,
        help="what the live page asks for; default: nothing on loopback, elsewhere one that is drawn",
        show_default=False,
    ),
]

TargetOf = Annotated[
    str | None,
    typer.Option(
        "--target",
        metavar="FILE",
        help="a server that somebody else wrote takes the gateway's place: a target file, or `flatline targets`",
    ),
]


@app.command("demo")
def demo(
    root: Root = Path("runs"),
    redis: Redis = None,
    allow_undecided: AllowUndecided = False,
    as_json: AsJson = False,
    junit: JUnit = None,
    summary: Summary = None,
) -> None:
    """Run the demo scenario three ways and write its report (about a minute).

    Without the privileges for silent deaths: all of it in theory and simulation, and real clients that need none.
    """
    from harness.real.engine import RealSetup
    from harness.real.network.silence import silence_available
    from harness.run import ENGINES, run

    name, silence = "demo", silence_available()
    if not silence.ok:
        name = "demo_unprivileged"
        with progress() as show:
            modelled = run(
                _load("demo"), engines=("theory", "simulated"), root=root, progress=show, warn=warn
            )
        say(f"the whole demo in theory and simulation: {modelled.headline}: {modelled.report}")
        say(
            "now real clients, in the ways that need no privileges: frozen, crashed, closed. "
            f"Power loss and lost NAT mappings cannot be made here: {silence.reason}; {silence.help}"
        )
    _run(_load(name), ENGINES, root, RealSetup(redis_url=redis), allow_undecided, as_json, junit, summary)


@app.command("run")
def run_command(
    scenario: ScenarioName,
    root: Root = Path("runs"),
    redis: Redis = None,
    clients: Clients = None,
    seed: Seed = None,
    speedup: Speedup = None,
    policy: PolicyFile = None,
    negative_control: NegativeControl = None,
    network: NetworkOf = "loopback",
    real_only: Annotated[
        bool, typer.Option("--real-only", help="theory and real clients, no simulation")
    ] = False,
    workers: Workers = None,
    hosts: Hosts = 0,
    address: Address = "",
    nodes: GatewayNodes = None,
    ledger: Annotated[
        bool, typer.Option("--ledger", help="the gateways keep the durable ledger, too; audited at the end")
    ] = False,
    gateway_preset: GatewayPreset = None,
    target: TargetOf = None,
    unchecked: Annotated[
        bool,
        typer.Option(
            "--unchecked",
            help="believe the target file; else it is checked before its first run, as by `flatline target check`",
        ),
    ] = False,
    live_page: LivePage = None,
    live_token: LiveToken = "",
    otel: Annotated[
        bool,
        typer.Option(
            "--otel",
            help="Locust's option: metrics go where OTEL_* of the environment says; needs the extra `otel`",
        ),
    ] = False,
    allow_undecided: AllowUndecided = False,
    as_json: AsJson = False,
    junit: JUnit = None,
    summary: Summary = None,
) -> None:
    """Run a scenario: theory, simulation and real clients; ends with a report."""
    from harness.judge.thresholds import with_what_is_seen
    from harness.real.engine import RealSetup
    from harness.run import ENGINES
    from reference_server.presets import find_preset
    from scenarios.load import built_in
    from scenarios.target_files import told_otherwise

    replaces = {"clients": clients, "seed": seed, "speedup": speedup, "target": target}
    loaded = _with_nodes(_load(scenario, policy, **replaces), nodes)
    if loaded.target is not None and not unchecked:
        loaded = loaded.model_copy(update={"target": targets.checked_before(loaded.target, root)})
    if loaded.target is not None and scenario in built_in():  # its thresholds are meant for our own gateway
        name = loaded.target.target
        loaded, unseen = with_what_is_seen(loaded)
        if unseen:
            say(f"left out, for no witness of {name} sees it: {'; '.join(unseen)}")
    no_model = loaded.target is not None and not loaded.target.heartbeat.law_known
    engines = ("theory", "real") if real_only or no_model else ENGINES
    preset = find_preset(gateway_preset).name if gateway_preset else None
    setup = RealSetup(redis, None, network, workers, hosts, address, ledger, gateway_preset=preset, otel=otel)
    if loaded.target is not None:
        told = told_otherwise(loaded.target, negative_control or [])
        setup = replace(setup, target_told=told)
    else:
        setup = replace(setup, gateway_policy=_gateway_policy(loaded, negative_control or []))
    if hosts:
        say(f"waits for {hosts} workers; on each host: flatline locust --worker --master-host {address}")
    page = live_page, live_token
    _run(loaded, engines, root, setup, allow_undecided, as_json, junit, summary, page)


@app.command("report")
def report(
    run_name: Annotated[str, typer.Argument(metavar="RUN", help="run directory, its name, or latest")],
    root: Root = Path("runs"),
    interactive: Annotated[
        bool,
        typer.Option("--interactive", help="figures of report.html can be zoomed and moved; still one file"),
    ] = False,
    pdf: Annotated[
        bool, typer.Option("--pdf", help="also write report.pdf, printed by an installed Chromium or Chrome")
    ] = False,
    allow_undecided: AllowUndecided = False,
    as_json: AsJson = False,
    junit: JUnit = None,
    summary: Summary = None,
) -> None:
    """Measure and report a run directory again; recovers what an interrupted run has logged."""
    from harness.print_pdf import find_browser, print_pdf
    from harness.run import conclude
    from harness.runs.directory import find_run

    browser = find_browser() if pdf else ""
    with progress() as show:
        outcome = conclude(find_run(run_name, root), progress=show, interactive=interactive)
    if pdf:
        say(f"printed: {print_pdf(outcome.report, browser)}")
    finish(outcome, allow_undecided=allow_undecided, as_json=as_json, junit=junit, summary=summary)


@app.command("serve")
def serve(
    scenario: Annotated[
        str | None, typer.Argument(help="its policy is served; default: the preset ours", show_default=False)
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="WebSocket port")] = 8765,
    http_port: Annotated[int, typer.Option(min=1, max=65535, help="HTTP port")] = 8766,
    preset: Annotated[
        str | None, typer.Option(help="serve a documented system; see `flatline presets`")
    ] = None,
    environment: Annotated[str | None, typer.Option(help="of system B; see `flatline presets`")] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file: a scenario, or system B's configuration")
    ] = None,
    log_level: Annotated[
        LogLevel | None,
        typer.Option(help="info: a line for each heartbeat and session; warning: those that fail"),
    ] = None,
    log_format: Annotated[LogFormat, typer.Option(help="of those lines, in the gateway's log")] = "text",
    speedup: Speedup = None,
    policy: PolicyFile = None,
    tls_cert: Annotated[
        Path | None,
        typer.Option(help="PEM with its chain: wss and https; SIGHUP to the gateway reads it again"),
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM, of that certificate")] = None,
    root: Root = Path("runs"),
    redis: Redis = None,
    ledger: Annotated[
        str | None, typer.Option(help="URL or SQLite file; default: one in the run's folder")
    ] = None,
    max_rss: Annotated[
        int | None,
        typer.Option(min=1, help="bytes; once the gateway is above it, it holds no more sessions than then"),
    ] = None,
) -> None:
    """Run the reference gateway alone, for instance for `flatline locust`."""
    from harness.serve import serve_forever, what_to_serve

    served = what_to_serve(scenario or config, preset, environment, speedup, policy)
    options = {
        "log_level": log_level,
        "log_format": log_format,
        "tls_certificate": tls_cert and tls_cert.resolve(),
        "tls_key": tls_key and tls_key.resolve(),
        "max_rss_bytes": max_rss,
    }
    serve_forever(served, port, http_port, root, redis, ledger, say, **options)


@app.command("schema")
def schema(
    of: Annotated[
        Literal["scenario", "policy", "target"], typer.Argument(help="of which files")
    ] = "scenario",
) -> None:
    """Print the JSON Schema of scenario, policy or target files, for editors."""
    from reference_server.liveness.heartbeat_policy import LivenessPolicy
    from scenarios.schema import Scenario
    from scenarios.target import Target

    models: dict[str, type[BaseModel]] = {"scenario": Scenario, "policy": LivenessPolicy, "target": Target}
    sys.stdout.write(json.dumps(models[of].model_json_schema(), indent=2, ensure_ascii=False) + "\n")


@app.command("scenarios")
def scenarios() -> None:
    """List the built-in scenarios."""
    from scenarios.load import built_in, load_scenario

    loaded = [load_scenario(name) for name in built_in()]
    show_table(
        ("name", "clients", "faults", "what it shows"),
        [
            (
                one.name,
                str(one.clients),
                ", ".join(fault.label for fault in one.faults) or "none",
                " ".join(one.description.split()),
            )
            for one in loaded
        ],
    )


@app.command("doctor")
def doctor(
    clean: Annotated[
        bool, typer.Option("--clean", help="remove what killed runs have left, no more")
    ] = False,
    redis: Annotated[
        str | None, typer.Option(help="with --clean: keys in this Redis, too", metavar="URL")
    ] = None,
) -> None:
    """Say what this machine can do, and what to do about what it cannot."""
    from harness import doctor as machine

    if clean:
        removed = machine.clean(redis)
        for what in removed:
            say(f"removed {what}")
        say(f"{len(removed)} leftovers of killed runs removed")
        return

    show_table(("", "check", "found"), [_checked(check) for check in machine.diagnose()], width=_DOCTOR_WIDTH)
    say("\nHow a real run would make each fault here:")
    made = machine.mechanisms()
    show_table(
        ("fault", "mechanism here", "what it cannot show"),
        [(m.fault, m.here, m.cannot_show) for m in made if m.here],
        width=_DOCTOR_WIDTH,
    )
    for why in dict.fromkeys(m.why for m in made if not m.here):
        say(f"\nNOT here: {', '.join(m.fault for m in made if m.why == why and not m.here)}")
        say(textwrap.fill(why, _DOCTOR_WIDTH))


def _checked(check: Check) -> tuple[str, str, str]:
    if check.ok:
        return "ok", check.name, check.found
    return "NO", check.name, f"{check.found}\nneeded for: {check.needed_for}\nwhat helps: {check.help}"


def _load(name: str, policy: Path | None = None, **overrides: float | str | None) -> Scenario:
    from scenarios.load import load_scenario
    from scenarios.policies import scenario_under

    given = {key: value for key, value in overrides.items() if value is not None}
    if policy is None:
        return load_scenario(name, **given)
    scenario, notes = scenario_under(name, policy, **given)
    for note in notes:
        say(note)
    return scenario


def _with_nodes(scenario: Scenario, nodes: int | None) -> Scenario:
    from scenarios.load import replaced

    if nodes is None:
        return scenario
    return replaced(scenario, "--nodes", gateway={"nodes": nodes})


def _gateway_policy(scenario: Scenario, settings: list[str]) -> LivenessPolicy | None:
    """The scenario's policy with some values replaced, checked as a scenario file is."""
    import yaml

    from scenarios.load import replaced
    from scenarios.read_yaml import read_yaml

    if not settings:
        return None
    changes = dict(setting.partition("=")[::2] for setting in settings)
    try:
        liveness = {key: read_yaml(value) for key, value in changes.items()}
    except (yaml.YAMLError, ValueError) as error:
        raise typer.BadParameter(f"--negative-control: not YAML: {error}") from error
    return replaced(scenario, "--negative-control", liveness=liveness).liveness


def _run(
    scenario: Scenario,
    engines: tuple[str, ...],
    root: Path,
    setup: RealSetup | None,
    allow_undecided: bool,
    as_json: bool,
    junit: Path | None,
    summary: Path | None,
    page: tuple[str | None, str] = (None, ""),
) -> None:
    from harness.cli.live_view import live_view
    from harness.real.processes.children import end_on_sigterm
    from harness.run import run

    with end_on_sigterm(), live_view(scenario, *page) as (show, began):
        outcome = run(
            scenario, engines=engines, root=root, setup=setup, progress=show, warn=warn, began=began
        )
    finish(outcome, allow_undecided=allow_undecided, as_json=as_json, junit=junit, summary=summary)


for _commands in (start, catalogue, policy, probe, runs, simulate, studies, targets, torture, user_sessions):
    _commands.register(app)


def main() -> None:
    """Entry point of the `flatline` command."""
    asked = sys.argv[1] if len(sys.argv) > 1 else ""
    commands = [command for command in app.registered_commands if command.name == asked]
    groups = [group for group in app.registered_groups if group.name == asked]
    if commands or groups:  # to read the options of all the others takes longer than the rest of a `--help`
        app.registered_commands, app.registered_groups = commands, groups
    app()
