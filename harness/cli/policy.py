"""`flatline tune | lint | emit | profiles`: which policy to choose, what is wrong with one, how to write it down."""

from __future__ import annotations

import textwrap
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.terminal import (
    PolicyFile,
    duration_s,
    in_a_folder,
    progress,
    say,
    show_frame,
    show_markdown,
    show_table,
    to_be_made,
)
from reference_server.errors import Exit

if TYPE_CHECKING:
    from harness.policy.tune.check import SimulationCheck
    from harness.policy.tune.recommend import Recommendation

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command("tune")(tune_command)
    app.command("lint")(lint_command)
    app.command("emit")(emit_command)
    app.command("profiles")(profiles_command)


def tune_command(
    network: Annotated[str | None, typer.Option(help="a network profile; see `flatline profiles`")] = None,
    csv: Annotated[
        Path | None, typer.Option(help="samples: round_trip_s, outage_s, observed_s, idle_s")
    ] = None,
    run: Annotated[str | None, typer.Option(help="a run directory that measured the network")] = None,
    behind: Annotated[
        list[str] | None, typer.Option(help="a box on the way, as of `flatline lint`; may be repeated")
    ] = None,
    detect_p50: Annotated[str | None, typer.Option(help="as 40s")] = None,
    detect_p95: Annotated[str | None, typer.Option(help="as 55s")] = None,
    detect_p99: Annotated[str | None, typer.Option(help="as 60s")] = None,
    detect_max: Annotated[str | None, typer.Option(help="as 90s")] = None,
    false_suspicions: Annotated[str | None, typer.Option(help="as 1/client-month or 'per user-week'")] = None,
    budget: Annotated[
        list[str] | None, typer.Option(help="of 1000 clients: 70/s (frames) or 9kB/s; may be repeated")
    ] = None,
    store_operations: Annotated[
        str | None,
        typer.Option("--max-store-ops", help="Redis operations a second for 1,000 clients, at most"),
    ] = None,
    radio_wakeups: Annotated[str | None, typer.Option(help="of one client, as 60/h")] = None,
    min_failures: Annotated[int | None, typer.Option(help="misses that make a suspicion, at least")] = None,
    headroom: Annotated[
        float | None, typer.Option(help="predicted false suspicions times this keep the bound")
    ] = None,
    prefer: Annotated[str, typer.Option(help="balanced, cost, latency or accuracy")] = "balanced",
    verified: Annotated[bool, typer.Option("--verify", help="run the recommendation for real")] = False,
    check: Annotated[bool, typer.Option(help="simulate the recommendation and its neighbours, 10 s")] = True,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            callback=in_a_folder,
            help="write the policy there, for `lint`, `emit`, `run`, `simulate` and `serve`",
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", callback=to_be_made, help="write recommendation.md, tables and figures there"
        ),
    ] = None,
    root: Annotated[Path, typer.Option("--runs", help="folder of run directories")] = Path("runs"),
) -> None:
    """Recommend a policy for a network: interval, timeout, failures, retry, TTLs; with the reasons.

    As `flatline tune --network mobile --behind aws-alb --output policy.yaml`. With --behind alone the clients are
    browsers at home.

    Exits with 99 where no policy keeps the requirements, or where the simulation of the recommended policy (unless
    --no-check) or a real run (--verify) contradicts its prediction.
    """
    from harness.policy.lint.sources import boxes_behind
    from harness.policy.profiles import load_profiles
    from harness.policy.tune.check import check_by_simulation
    from harness.policy.tune.conditions import UNNAMED_NETWORK, conditions_of_profile
    from harness.policy.tune.explain import explain
    from harness.policy.tune.measured_conditions import network_from_csv, network_from_run
    from harness.policy.tune.recommend import recommend
    from harness.policy.tune.requirements import parse_requirements
    from harness.policy.tune.verify import verify
    from harness.real.processes.children import end_on_sigterm
    from harness.runs.directory import find_run

    sources = [source for source in (network, csv, run) if source is not None]
    if len(sources) > 1 or (not sources and not behind):
        names = ", ".join(profile.name for profile in load_profiles().networks)
        say(
            f"error: say which network: one of --network ({names}), --csv, --run; "
            "or a box on the way, as --behind aws-alb",
            "red",
        )
        raise typer.Exit(Exit.BAD_INPUT)
    if csv is not None:
        conditions = network_from_csv(csv)
    elif run is not None:
        conditions = network_from_run(find_run(run, root))
    else:
        conditions = conditions_of_profile(network or UNNAMED_NETWORK)
        if network is None:
            say(f"no --network named: {UNNAMED_NETWORK} is assumed; see `flatline profiles`")
    if behind:
        conditions = conditions.behind(box for text in behind for box in boxes_behind(text))
        conditions = replace(conditions, name=f"{conditions.name} behind {', '.join(behind)}")
    requirements = parse_requirements(
        detect_p50=detect_p50,
        detect_p95=detect_p95,
        detect_p99=detect_p99,
        detect_max=detect_max,
        false_suspicions=false_suspicions,
        budget=tuple(budget or ()),
        store_operations=store_operations,
        radio_wakeups=radio_wakeups,
        prefer=prefer,
        min_failures=min_failures,
        headroom=headroom,
    )
    found = recommend(conditions, requirements)
    checked = None
    if check:
        with progress() as shown:
            checked = check_by_simulation(found, progress=shown)
    show_markdown(explain(found, checked))
    if report is not None:
        _write(found, checked, report)
    if output is not None:
        _write_policy(found, output)
    if checked is not None and checked.contradicted:
        named = ", ".join(checked.contradicted)
        say(f"the simulation contradicts the prediction of: {named}", "red")
    if verified:
        with end_on_sigterm(), progress() as shown:
            verification = verify(found, root=root, progress=shown)
        show_frame(verification.table)
        say(f"report: {verification.outcome.report}")
        if not verification.confirmed:
            say("the measurement does not confirm the prediction", "red")
            raise typer.Exit(verification.outcome.exit_code or Exit.MISSED)
    if not found.feasible or (checked is not None and not checked.agrees):
        raise typer.Exit(Exit.MISSED)


def _write_policy(found: Recommendation, file: Path) -> None:
    from harness.policy.tune.explain import in_words
    from scenarios.policies import dump_policy

    words = textwrap.wrap(in_words(found.policy, found.figures).replace("**", ""), 100)
    where = f"By flatline tune for {found.conditions.name}."
    file.write_text(dump_policy(found.policy, where, *words), encoding="utf-8")
    say(f"written: {file}; try it: flatline run host_crash --policy {file}")


def _write(found: Recommendation, check: SimulationCheck | None, folder: Path) -> None:
    from harness.policy.tune.explain import explain
    from reports.figures.heat_map import heat_map
    from reports.figures.pareto import pareto
    from reports.style import save

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recommendation.md").write_text(explain(found, check), encoding="utf-8")
    if check is not None:
        check.table.to_csv(folder / "simulated.csv", index=False)
    for name in ("candidates", "pareto", "heat", "rejected", "probing", "sensitivity"):
        getattr(found, name).to_csv(folder / f"{name}.csv", index=False)
    limits = found.requirements.limits
    bounds = {limit.column: limit.written(limit.allowed) for limit in limits}
    caption = (
        f"{found.conditions.name}: {len(found.candidates):,} policies by closed forms. Your bounds: "
        f"{', '.join(f'{limit.key} {bounds[limit.column]}' for limit in limits)}."
    )
    save(heat_map(found.heat, bounds=bounds, caption=caption), folder, "heat_map")
    front = pareto(
        found.candidates,
        latency_limit_s=found.requirements.detect_p99,
        mistake_limit=found.requirements.false_suspicions,
        caption=caption,
    )
    save(front, folder, "pareto")
    say(f"written: {folder}")


def lint_command(
    subjects: Annotated[
        list[str],
        typer.Argument(
            metavar="SUBJECT…",
            help="scenario, heartbeat profile, or file: a scenario, a bare policy (heartbeat_interval …), options of "
            "Socket.IO or another library; and files of proxies (nginx.conf, haproxy.cfg)",
        ),
    ],
    behind: Annotated[
        list[str] | None,
        typer.Option(
            help="a box on the way: a profile, its own value (nginx=75s), a time (50s, 50s:reset), a file of a proxy; "
            "may be repeated"
        ),
    ] = None,
    network: Annotated[str | None, typer.Option(help="a network profile with its middleboxes")] = None,
    promise: Annotated[str | None, typer.Option(help="what was promised, as 60s")] = None,
    page_timed: Annotated[bool, typer.Option(help="a timer in a web page sends the heartbeats")] = False,
    send_only: Annotated[bool, typer.Option(help="nobody checks that the heartbeats are answered")] = False,
    node_lease: Annotated[bool, typer.Option(help="a lease tells when a node has died")] = False,
    close_wait: Annotated[str | None, typer.Option(help="wait for a closing handshake, as 10s")] = None,
    sessions: Annotated[int | None, typer.Option(help="sessions expected at once")] = None,
) -> None:
    """Check a policy, a whole scenario or a product's configuration against itself and the boxes on the way.

    Says what is wrong, why, a fix that goes together with all the others, and what was checked. Exits with 99 where an
    error is found.
    """
    from harness.policy.lint import Extras, Setting, Severity, lint
    from harness.policy.lint.sources import boxes_behind, combined, subject_of
    from harness.policy.profiles import middleboxes_of, network_profile
    from scenarios.gateway import Lease

    boxes = [box for text in behind or () for box in boxes_behind(text)]
    known = None if network is None else network_profile(network)
    if known is not None:
        boxes += middleboxes_of(known)
    subject = combined(subject_of(name) for name in subjects)
    default = Lease()
    extras = Extras(
        timed_by_page=page_timed or None,
        answers_checked=False if send_only else None,
        lease_s=default.ttl + default.check if node_lease else None,
        promise_s=duration_s(promise, "--promise") if promise else None,
        close_wait_s=duration_s(close_wait, "--close-wait") if close_wait else None,
        expected_sessions=sessions,
        network=None if known is None else known.network,
    )
    what = subject.what or Setting.unknown(subject.name)
    found = lint(what, [*subject.boxes, *boxes], extras)
    show_markdown(
        "\n".join(
            f"- **{f.severity.value}** {f.rule}{f' ({f.middlebox})' if f.middlebox else ''}: "
            f"{f.message}\n  - why: {f.reason}\n  - fix: {f.fix}"
            for f in found.findings
        )
        or "nothing found"
    )
    show_markdown("\n".join(["", "checked:", *(f"- {line}" for line in found.checked)]))
    if found.not_checked:
        show_markdown("\n".join(["", "not checked:", *(f"- {line}" for line in found.not_checked)]))
    if found.mended != found.setting and not found.clashing:
        show_markdown(f"\nwith these fixes a silent client is noticed after {found.mended.detection}")
    if any(finding.severity is Severity.ERROR for finding in found.findings):
        raise typer.Exit(Exit.MISSED)


def emit_command(
    target: Annotated[
        str, typer.Argument(help="a stack, as websockets or python-socketio; any other name lists them")
    ],
    scenario: Annotated[str, typer.Option(help="its policy is written")] = "demo",
    policy: PolicyFile = None,
    output: Annotated[
        Path | None, typer.Option(callback=in_a_folder, help="file; default: standard output")
    ] = None,
) -> None:
    """Write a policy as configuration for a real stack, with what that stack cannot express."""
    from harness.policy.emit.stacks import CannotEmit, emit
    from reference_server.liveness.kinds import Ping
    from scenarios.load import load_scenario
    from scenarios.policies import load_policy

    loaded = load_scenario(scenario)
    if policy is None and not isinstance(loaded.detector, Ping):
        raise CannotEmit(f"detector {loaded.detector.kind}: other stacks have ping and deadline alone")
    asked = loaded.liveness if policy is None else load_policy(policy)
    emitted = emit(asked, target)
    if output is None:
        typer.echo(emitted.text, nl=False)
    else:
        output.write_text(emitted.text, encoding="utf-8")
    lo_s, hi_s = emitted.detection_range_s
    say(
        f"{emitted.target}: a silent peer is noticed {lo_s:g} to {hi_s:g} s after its death, by the ping it dies after"
    )
    if (own := asked.detection_range_s) is not None and own != emitted.detection_range_s:
        late_s = round(hi_s - own[1], 6)
        say(
            f"the policy itself says {own[0]:g} to {own[1]:g} s; what {emitted.target} does differently is below"
        )
        if 0 < late_s < asked.heartbeat_timeout:
            say(f"where {own[1]:g} s is a bound to keep: take {late_s:g} s from heartbeat_timeout before")
    for note in emitted.notes:
        say(f"  * {note}")


def profiles_command() -> None:
    """List the built-in profiles: heartbeat defaults, idle timers, networks; with source and status."""
    from harness.policy.profiles import load_profiles

    known = load_profiles()
    show_table(
        ("name", "what", "numbers", "status", "source"),
        [p.row for p in (*known.heartbeats, *known.idle_timers, *known.networks)],
    )
