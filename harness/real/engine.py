"""The real engine: start Redis, gateways, store watch and Locust, let the plan happen, end everything.

From a scenario and its plan to the witnesses' logs in the run directory. `check_machine` says beforehand whether this
machine can do it, `fidelity` what its mechanisms cannot show. Measures nothing.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec

from harness.real.errors import CannotRun
from harness.real.incidents import Incidents, check_incidents, drain_spread_s
from harness.real.machine_limits import Load, check_limits, this_machine, workers_for
from harness.real.network import NetworkKind
from harness.real.network.nat import check_network, is_behind_nat, network_of
from harness.real.network.silence import silence_available
from harness.real.processes.certificate import own_certificate
from harness.real.processes.children import Child, ChildDied, Children
from harness.real.processes.delay import start_delay
from harness.real.processes.gateways import Nodes, gateway_config
from harness.real.processes.proxy import PROXIES, check_proxy, start_proxy
from harness.real.processes.redis import RedisServer, quiet_port, redis_server
from harness.real.resources import ResourceSampler
from harness.real.targets.describe import attached_port, other_versions, trust_of, urls_of
from harness.real.targets.process import check_target, start_observer, wait_ready
from harness.runs.directory import RunDir
from harness.theory.tcp import tcp_give_up_s
from reference_server.event_log import EventWriter
from reference_server.events import Event, EventKind, Source
from reference_server.liveness.heartbeat_policy import LivenessPolicy
from reference_server.presets import find_preset
from scenarios.clock import SCENARIO_TIME, RunClock
from scenarios.faults import INCIDENTS
from scenarios.faults.incidents import DrawnStoreRestart
from scenarios.faults.nat_timeout import REAL_NAT
from scenarios.network import Network
from scenarios.plan import Plan
from scenarios.schema import Scenario
from scenarios.target import Target

__all__ = [
    "CannotRun",
    "RealSetup",
    "Ticker",
    "check_machine",
    "fidelity",
    "real_policy",
    "run_real",
    "wait_for_the_end",
]

_TICK_S = 0.1
_AUDIT_SPARE_S, _MOST_AUDIT_S = 1.0, 5.0
_END_GRACE_S = 60.0  # Locust's own wind-up after the horizon

Ticker = Callable[[float, float], float]
"""Given now and the plan's time zero, both on CLOCK_MONOTONIC, does what is due; returns when to come again."""


def wait_for_the_end(
    children: Children,
    locust: Child,
    *,
    origin_s: float,
    length_s: float,
    run: RunDir,
    on_time: Ticker,
    progress: Callable[[float], None],
    begin_within_s: float | None = None,
) -> None:
    """Wait for Locust to reach the horizon, however long its start takes. Times are real seconds.

    Args:
        children: all of the run's.
        locust: one of them.
        origin_s: CLOCK_MONOTONIC at the run's origin.
        length_s: from the plan's time zero to the horizon.
        run: where the clients log.
        on_time: called from the plan's time zero on.
        progress: told how much is done, 0 to 1.
        begin_within_s: until the plan's time zero; None: a minute.

    Raises:
        ChildDied: a child ended that should not have.
        CannotRun: the generator does not begin, or does not end.
    """
    began_s: float | None = None
    waiting_since_s = time.monotonic()
    while locust.returncode is None:
        children.check()
        now_s = time.monotonic()
        next_s = now_s + _TICK_S
        if began_s is None:
            begun_s = run.clients_began_s()
            began_s = None if begun_s is None else origin_s + begun_s
        if began_s is not None:
            next_s = min(next_s, on_time(now_s, began_s))
            progress(min(1.0, (now_s - began_s) / length_s))
        late = (
            now_s - waiting_since_s > (begin_within_s or _END_GRACE_S)
            if began_s is None
            else now_s - began_s > length_s + _END_GRACE_S
        )
        if late:
            what = "begin" if began_s is None else "come to its end"
            raise CannotRun(f"the generator did not {what} in time: {locust.log}")
        time.sleep(max(0.0, next_s - time.monotonic()))
    if locust.returncode != 0:
        raise ChildDied(locust.name, locust.returncode, locust.log, locust.log_tail())
    progress(1.0)


POLL_S = 0.005  # the store watch's resolution, real seconds
TCP_GIVE_UP_S = tcp_give_up_s()  # what the kernel would wait for, at the least
_BOX = (
    "a timer on each client's own packets, then socket filter, RST or FIN by the client's socket",
    "a real box: packets that TCP sends by itself, and what a client does not read, are not counted",
)
_TLS = (
    "OpenSSL at both ends, a certificate of the run's own",
    "a proxy that ends TLS before the gateway, or a browser's own TLS",
)
_HOSTS_COME_WITHIN_S = 600.0  # somebody starts them by hand


@dataclass(frozen=True, slots=True)
class RealSetup:
    """How to run for real.

    Attributes:
        redis_url: the user's Redis; None: a private one.
        gateway_policy: replaces the scenario's policy in the gateway alone, in scenario time: a negative control,
            which must turn the agreement red.
        network: where clients and gateway are, see `network/nat.py`.
        workers: generator processes; None: as many as the clients need.
        hosts: instead, how many workers on other hosts to wait for (`remote_workers.py`).
        address: where those reach this host.
        ledger: the gateways keep the durable ledger, too, in the run directory, and it is audited at the end; a
            login then waits for the disk, which the scenario's clock sees as longer.
        store_sample_s: how often the store watch counts all sessions, real seconds: it is work for Redis.
        target_told: whose times the scenario's target is told instead of its own: a negative control.
        otel: Locust sends metrics, and flatline's with them, to OpenTelemetry, as `OTEL_*` of the environment says.
        gateway_preset: name of a preset that the gateway is instead of what the scenario says: a negative control.
    """

    redis_url: str | None = None
    gateway_policy: LivenessPolicy | None = None
    network: NetworkKind = "loopback"
    workers: int | None = None
    hosts: int = 0
    address: str = ""
    ledger: bool = False
    store_sample_s: float = 1.0
    gateway_preset: str | None = None
    target_told: Target | None = None
    otel: bool = False


def run_real(
    scenario: Scenario,
    plan: Plan,
    run: RunDir,
    *,
    setup: RealSetup | None = None,
    progress: Callable[[float], None] = lambda _: None,
) -> None:
    """Run a plan against the reference gateway; the logs are in `run.logs` afterwards.

    1. Start Redis, the gateway nodes, the store watch, Locust.
    2. Once the nodes listen, tell Locust where: its clients follow the plan by themselves.
    3. Do the plan's incidents to nodes and store on time, and wait for the horizon.
    4. With a ledger, compare it with memory and Redis.
    5. End everything, the last started first.

    Ctrl-C (KeyboardInterrupt) passes through after every child has ended and its log is written.

    Args:
        scenario: what the gateway and the clients are told.
        plan: who meets which fault, when; `check_machine` has found that the machine can do it.
        run: its directory, with the scenario and the plan in it.
        setup: how to run.
        progress: told how much is done, 0 to 1.

    Raises:
        CannotRun: a part does not begin or end in time.
        RedisUnavailable: no Redis.
        ChildDied: a process ended in mid-run; what was logged stays.
    """
    setup = setup or RealSetup()
    workers = setup.workers or workers_for(plan.clients, this_machine())
    if scenario.target is not None:
        _run_target(scenario, setup, plan, run, workers, progress)
        return
    kept = any(one.params == DrawnStoreRestart(keeps=True) for one in plan.incidents)
    origin_s = time.monotonic()
    with (
        Children() as children,
        network_of(
            setup.network, plan, scenario.clock, run.nat_boxes, setup.address, scenario.gateway.nodes
        ) as network,
        redis_server(
            setup.redis_url, children, run.logs, append_only=kept, everywhere=network.hosts is not None
        ) as redis,
        own_certificate(*network.addresses(scenario.gateway.nodes))
        if scenario.network.tls
        else nullcontext() as tls,
    ):
        served = as_preset(scenario, setup.gateway_preset)
        policy = real_policy(setup.gateway_policy or served.liveness, scenario.clock)
        ledger = run.ledger_url if setup.ledger else None
        numbers = range(1, scenario.gateway.nodes + 1)
        nodes = Nodes(
            children,
            run,
            [
                gateway_config(
                    served,
                    policy,
                    redis,
                    run,
                    origin_s,
                    n,
                    network.bind,
                    ledger,
                    drain_spread_s(plan, scenario.clock, n),
                    network.hosts,
                    tls,
                )
                for n in numbers
            ],
            network.gateway,
            network.hosts,
        )
        # They import while the nodes do: the clients come once they are told where to.
        watch = start_store_watch(children, redis, run, origin_s, setup.store_sample_s)
        proxied = setup.network in PROXIES
        delayed = proxied and scenario.network.nat is not None and scenario.network.nat.at == "client"
        with network.at_clients():
            locust = _locust(
                children,
                plan,
                run,
                (
                    *(["--tls-ca", str(tls.ca)] if tls is not None else []),
                    *(["--has-real-middle"] if proxied else []),
                    *(["--has-real-round-trip"] if delayed else []),
                    *(["--otel"] if setup.otel else []),
                ),
                origin_s,
                workers,
                setup.hosts,
            )
        nodes.wait()
        pids = {f"gateway/{node.name}": node.child.pid for node in nodes}
        ws_urls, middle = nodes.ws_urls, scenario.network.nat
        if setup.network in ("nginx", "haproxy") and middle is not None:
            idle_s = scenario.clock.real_s(middle.idle_timeout)
            ports = [node.port for node in nodes]
            if delayed:
                delay, ports = start_delay(children, run.logs, run.scenario, ports)
                pids["delay"] = delay.pid
            proxy, ports = start_proxy(setup.network, children, run.logs, ports, idle_s, plan.clients)
            ws_urls = ",".join(f"ws://{network.gateway}:{port}/ws" for port in ports)
            pids["proxy"] = proxy.pid
            children.end_first(locust)
        run.write_json(run.urls, {"ws": ws_urls, "http": nodes.http_urls})
        pids |= {"store-watch": watch.pid, "generator": locust.pid}
        if redis.child is not None:
            pids["redis"] = redis.child.pid
        run.write_json(run.pids, pids)
        incidents = Incidents(
            plan, scenario.clock, nodes, redis, pids, run.log("incidents", os.getpid()), origin_s
        )
        with ResourceSampler(pids, run.log("harness", os.getpid()), origin_s), closing(incidents):
            wait_for_the_end(
                children,
                locust,
                origin_s=origin_s,
                length_s=scenario.clock.real_s(plan.horizon_s),
                run=run,
                on_time=incidents,
                begin_within_s=_HOSTS_COME_WITHIN_S if setup.hosts else None,
                progress=progress,
            )
        if ledger is not None:
            ca = str(tls.ca) if tls is not None else ""
            _audit(nodes, redis, ledger, policy.resume_window, run, origin_s, ca)


def _run_target(
    scenario: Scenario,
    setup: RealSetup,
    plan: Plan,
    run: RunDir,
    workers: int,
    progress: Callable[[float], None],
) -> None:
    """Run a plan against a server that is not ours: an observer that starts it, then the same clients.

    Raises:
        CannotRun: the server is not ready in time.
        ChildDied: it ended, or a process of ours did.
    """
    target = setup.target_told or scenario.target
    assert target is not None
    origin_s = time.monotonic()
    with Children() as children, ExitStack() as services:
        redis = None
        if target.start is not None and "redis" in target.start.services:
            redis = services.enter_context(redis_server(None, children, run.logs))
        port = quiet_port() if target.start is not None else attached_port(target)
        ports = port, quiet_port()
        run.write_json(run.target, target.model_dump(mode="json"))
        observer = start_observer(children, target, run, origin_s, ports, redis.url if redis else "")
        options = (*trust_of(target), *(["--otel"] if setup.otel else []))
        locust = _locust(children, plan, run, options, origin_s, workers, 0)
        pid = wait_ready(children, target, run)
        url, login_url = urls_of(target, ports)
        run.write_json(run.urls, {"ws": url, "http": login_url})
        pids = {"observer": observer.pid, "generator": locust.pid}
        if pid is not None:
            pids["target"] = pid
        if redis is not None and redis.child is not None:
            pids["redis"] = redis.child.pid
        run.write_json(run.pids, pids)
        with ResourceSampler(pids, run.log("harness", os.getpid()), origin_s):
            wait_for_the_end(
                children,
                locust,
                origin_s=origin_s,
                length_s=scenario.clock.real_s(plan.horizon_s),
                run=run,
                on_time=lambda now_s, _began_s: now_s + _TICK_S,
                progress=progress,
            )


def _audit(
    nodes: Nodes,
    redis: RedisServer,
    ledger_url: str,
    resume_window_s: float,
    run: RunDir,
    origin_s: float,
    tls_ca: str = "",
) -> None:
    """Log whether memory, Redis and the ledger agree once the clients have gone, or why nobody can tell.

    What differs has to do so for a resume window and a second, five seconds at most. Nodes that were killed for good
    are not asked: what they have left behind is for the others to clear, and a difference while it is there.
    """
    from harness.user_sessions.audit import (
        AuditTarget,
        CannotAudit,
        audit,
    )  # SQLAlchemy, which most runs do without

    urls = nodes.http_urls.split(",")
    running = tuple(url for url, node in zip(urls, nodes, strict=True) if node.runs)
    target = AuditTarget(
        running, redis.url, redis.key_prefix, ledger_url, nodes[1].config.operator_token, tls_ca
    )
    try:
        found = audit(target, min(resume_window_s + _AUDIT_SPARE_S, _MOST_AUDIT_S))
    except CannotAudit as error:
        detail: dict[str, object] = {"error": str(error)}
    else:
        kinds = Counter(one.kind for one in found.differences)
        detail = {"sessions": found.sessions, "differences": dict(kinds), "took_s": found.took_s}
    with EventWriter(run.log("audit", os.getpid())) as out:
        now_s = time.monotonic() - origin_s
        out.write(Event(now_s, Source.HARNESS, EventKind.AUDITED, detail=detail))


def check_machine(plan: Plan, scenario: Scenario | None = None, setup: RealSetup | None = None) -> list[str]:
    """Return if the machine can do what a plan wants: warnings, where it hardly can.

    It can inject every fault, the gateway is what the scenario wants, and there are descriptors, ports and
    memory for the clients.

    Raises:
        CannotRun: it cannot; nothing is faked.
    """
    if scenario is not None and scenario.simulated_only:
        raise CannotRun(
            f"{', '.join(scenario.simulated_only)}: only the simulation can do this; use `flatline simulate`"
        )
    _check_probes(scenario)
    setup = setup or RealSetup()
    if setup.otel and find_spec("opentelemetry") is None:
        raise CannotRun("--otel needs OpenTelemetry's SDK and exporters: pip install 'flatline[otel]'")
    if scenario is not None and scenario.target is not None:
        check_target(scenario.target, setup.network, setup.hosts)
        if setup.gateway_preset is not None or setup.ledger:
            raise CannotRun("--gateway-preset and --ledger are of the reference gateway; leave them out")
    check_incidents(plan, setup.redis_url, setup.network, setup.hosts)
    if setup.hosts and (setup.network != "loopback" or not setup.address):
        raise CannotRun("--hosts needs --address, where they reach this host, and loopback as --network")
    if setup.network != "loopback" and any(i.kind == "reconnect_storm" for i in plan.incidents):
        raise CannotRun("reconnect_storm: the clients' sockets are in another namespace; allowed: loopback")
    if scenario is not None and scenario.network.tls and scenario.target is None:
        if setup.hosts or setup.network in PROXIES:
            raise CannotRun(
                "network.tls: the run's own certificate is not known on other hosts, and a proxy would have to "
                "have it; allowed with it: clients on this host, --network loopback or netns-nat"
            )
        with own_certificate("localhost"):
            pass
    check_network(setup.network, plan, scenario.clock if scenario else SCENARIO_TIME, setup.redis_url)
    if setup.network in ("nginx", "haproxy"):
        check_proxy(setup.network, scenario.network if scenario else Network())
    filtered = [f for f in plan.faults if not (setup.network == "netns-nat" and is_behind_nat(f))]
    silent = sorted({one.fault for one in filtered if one.behaviour.needs_socket_filter})
    if silent or plan.outages:
        silence = silence_available()
        if not silence.ok:
            raise CannotRun(
                f"{', '.join(silent) or 'outages'} cannot be injected here: {silence.reason}; {silence.help}; "
                "`flatline simulate` needs no privileges"
            )
    nodes = scenario.gateway.nodes if scenario is not None else 1
    workers = setup.hosts or setup.workers or workers_for(plan.clients, this_machine())
    target = scenario.target if scenario is not None else None
    warnings = other_versions(target) if target is not None else []
    return warnings + check_limits(Load(plan.clients, nodes, workers))


def _check_probes(scenario: Scenario | None) -> None:
    """The kernel counts its probes in whole seconds."""
    probes = scenario.liveness.tcp_keepalive if scenario is not None else None
    if scenario is None or probes is None:
        return
    real = scenario.clock.sped_up(probes)
    if any(abs(time_s - round(time_s)) > 1e-9 for time_s in (real.idle, real.interval)):
        raise CannotRun(
            f"tcp_keepalive of {probes.idle:g} s and {probes.interval:g} s at speedup {scenario.speedup:g}: the "
            f"kernel takes whole seconds, not {real.idle:g} and {real.interval:g}; choose another speedup"
        )


def real_policy(policy: LivenessPolicy, clock: RunClock) -> LivenessPolicy:
    """The policy as a real run has it: its times as much shorter, the kernel's patience with them.

    TCP's retransmission timers cannot be sped up, but they can be bounded: a socket that would give up
    after 924.6 s of scenario time does so by ``TCP_USER_TIMEOUT`` as much sooner.
    """
    return clock.sped_up(bounded_patience(policy, clock))


def as_preset(scenario: Scenario, preset: str | None) -> Scenario:
    """The scenario as a gateway is told it that is a preset; None: as it is.

    Raises:
        UnknownPresetError: no such preset.
    """
    if preset is None:
        return scenario
    told = find_preset(preset)
    sessions = scenario.sessions.model_copy(update=told.scenario_keys["sessions"])
    return scenario.model_copy(
        update={
            "liveness": told.policy,
            "detector": told.detector,
            "records": told.rules,
            "sessions": sessions,
        }
    )


def bounded_patience(policy: LivenessPolicy, clock: RunClock) -> LivenessPolicy:
    """In a run faster than real time, pin TCP's give-up time in the policy; elsewhere return it as it is.

    It is a constant of the kernel (924.6 s with Linux's defaults) and would otherwise look longer to the scenario.
    Seconds of the scenario.
    """
    if clock.is_real_time or policy.tcp_user_timeout is not None:
        return policy
    return policy.model_copy(update={"tcp_user_timeout": TCP_GIVE_UP_S})


def fidelity(
    plan: Plan, setup: RealSetup | None = None, network: Network | None = None
) -> list[dict[str, str]]:
    """Which mechanism makes each fault and incident of a plan and the box on the path, and what it cannot show."""
    real_nat = setup is not None and setup.network == "netns-nat"
    planned = {fault.fault: fault for fault in plan.faults}
    found = {
        label: REAL_NAT
        if real_nat and is_behind_nat(fault)
        else ((done := fault.behaviour).drawn_mechanism, done.cannot_show)
        for label, fault in planned.items()
    }
    found |= {
        kind: (one.drawn.mechanism, one.drawn.cannot_show)
        for kind, one in INCIDENTS.items()
        if any(incident.kind == kind for incident in plan.incidents)
    }
    if network is not None and (network.nat is not None or network.max_age is not None):
        real = setup.network if setup is not None and setup.network in PROXIES else None
        found["network.nat" if network.nat is not None else "network.max_age"] = (
            (f"a real {real}", "a proxy that speaks TLS, or of another maker") if real else _BOX
        )
    if network is not None and network.tls:
        found["network.tls"] = _TLS
    return [
        {"fault": label, "mechanism": mechanism, "cannot_show": cannot_show}
        for label, (mechanism, cannot_show) in found.items()
    ]


def start_store_watch(
    children: Children, redis: RedisServer, run: RunDir, origin_s: float, sample_s: float = 1.0
) -> Child:
    """Start the store watch of a run; its log is `store.jsonl`."""
    argv = _python(
        "harness.real.store_watch.process",
        *("--redis", redis.url, "--prefix", redis.key_prefix, "--logs", str(run.logs)),
        *("--out", str(run.log("store")), "--origin-s", repr(origin_s)),
        *("--poll-ms", str(POLL_S * 1000), "--sample-ms", str(sample_s * 1000)),
    )
    return children.start("store-watch", argv, log=run.logs / "watch.log")


def _locust(
    children: Children,
    plan: Plan,
    run: RunDir,
    target: Sequence[str],
    origin_s: float,
    workers: int,
    hosts: int,
) -> Child:
    argv = _python(
        "harness.real.generator",
        "--headless",
        "--only-summary",
        "--with-parent",
        "--await-urls",
        # All users at once: each then waits for its own moment of the plan's ramp.
        *("--users", str(plan.clients), "--spawn-rate", str(plan.clients)),
        *("--run-dir", str(run.path), "--origin-s", repr(origin_s)),
        *target,
        *("--csv", str(run.logs / "locust"), "--exit-code-on-error", "0"),
    )
    if hosts:
        argv += ["--master", "--expect-workers", str(hosts)]
    elif workers > 1:
        port = str(quiet_port())
        argv += ["--processes", str(workers), "--master-host", "127.0.0.1", "--master-port", port]
        argv += ["--master-bind-host", "127.0.0.1", "--master-bind-port", port]
    log = run.logs / "locust.log"
    return children.start("locust", argv, log=log, may_finish=True, stop_deadline_s=60.0)


def _python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]
