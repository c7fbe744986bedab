"""The real engine: start Redis, gateway, store watch and Locust, let the plan happen, end everything.

From a scenario and its plan to the witnesses' logs in the run directory. Measures nothing.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from harness.catalogue import CLIENT_FAULTS, client_fault
from harness.faults import Plan
from harness.real.blackhole import silence_available
from harness.real.processes import Child, ChildDied, Children
from harness.real.redis_server import RedisServer, redis_server
from harness.real.resources import ResourceSampler
from harness.rundir import RunDir
from harness.theory import tcp_give_up_s
from reference_server.config import GatewayConfig
from reference_server.liveness import LivenessPolicy
from scenarios.schema import Scenario

__all__ = ["CannotRun", "RealSetup", "gateway_config", "run_real", "start_gateway"]

POLL_S = 0.05  # the store watch's grain, real seconds
TCP_GIVE_UP_S = tcp_give_up_s()  # what the kernel would wait for, at the least
_TICK_S = 0.1
_START_DEADLINE_S = 30.0
_END_GRACE_S = 60.0  # Locust's own wind-up after the horizon
_SILENT_FAULTS = {kind for kind, fault in CLIENT_FAULTS.items() if fault.silent}
_LOCUSTFILE = Path(__file__).with_name("locustfile.py")


class CannotRun(RuntimeError):
    """This machine cannot do what the scenario asks for; the message says what would help."""


@dataclass(frozen=True, slots=True)
class RealSetup:
    """How to run for real.

    ``gateway_policy`` replaces the scenario's policy in the gateway alone, in scenario time: a negative
    control, which must turn the agreement red.
    """

    redis_url: str | None = None
    gateway_policy: LivenessPolicy | None = None


def run_real(
    scenario: Scenario,
    plan: Plan,
    run: RunDir,
    *,
    setup: RealSetup | None = None,
    progress: Callable[[float], None] = lambda _: None,
) -> None:
    """Run a plan against the reference gateway; the logs are in `run.logs` afterwards.

    Ctrl-C (KeyboardInterrupt) passes through after every child has ended and its log is written.

    Raises:
        CannotRun: the machine refuses what the plan needs (socket filters), before anything starts.
        RedisUnavailable: no Redis.
        ChildDied: a process ended in mid-run; what was logged stays.
    """
    setup = setup or RealSetup()
    check_machine(plan, scenario)
    origin_s = time.monotonic()
    with Children() as children, redis_server(setup.redis_url, children, run.logs) as redis:
        policy = real_policy(setup.gateway_policy or scenario.liveness, scenario.speedup)
        config = gateway_config(scenario, policy, redis, run, origin_s)
        gateway, ports = start_gateway(children, config, run)
        watch = [
            *("--redis", redis.url, "--prefix", redis.key_prefix, "--logs", str(run.logs)),
            *("--out", str(run.logs / "store.jsonl"), "--origin-s", repr(origin_s)),
            *("--poll-ms", str(POLL_S * 1000)),
        ]
        watch_argv = _python("harness.real.watch", *watch)
        store_watch = children.start("store-watch", watch_argv, log=run.logs / "watch.log")
        locust = children.start("locust", _locust(plan, run, ports, origin_s), log=run.logs / "locust.log",
                                may_finish=True, stop_deadline_s=15.0)  # fmt: skip
        pids = {"gateway": gateway.pid, "store-watch": store_watch.pid, "generator": locust.pid}
        if redis.child is not None:
            pids["redis"] = redis.child.pid
        run.write_json(run.logs / "pids.json", pids)
        with ResourceSampler(pids, run.logs / f"harness-{os.getpid()}.jsonl", origin_s):
            _wait(children, locust, plan.horizon_s / scenario.speedup, run, progress)


def check_machine(plan: Plan, scenario: Scenario | None = None) -> None:
    """Return if the machine can inject every fault of a plan, and the gateway is what the scenario wants.

    Raises:
        CannotRun: it cannot; nothing is faked.
    """
    if scenario is not None and scenario.simulated_only:
        raise CannotRun(
            f"{', '.join(scenario.simulated_only)}: only the simulation can do this; use `flatline simulate`"
        )
    silent = sorted({fault.kind for fault in plan.faults} & _SILENT_FAULTS)
    if silent or plan.outages:
        silence = silence_available()
        if not silence.ok:
            raise CannotRun(
                f"{', '.join(silent) or 'outages'} cannot be injected here: {silence.reason}; {silence.help}; "
                "`flatline simulate` needs no privileges"
            )


def real_policy(policy: LivenessPolicy, speedup: float) -> LivenessPolicy:
    """Divide a policy's times by the speedup, the kernel's patience with it.

    TCP's retransmission timers cannot be sped up, but they can be bounded: a socket that would give up
    after 924.6 s of scenario time does so by ``TCP_USER_TIMEOUT`` after 924.6 s / speedup.
    """
    fast = policy.faster(speedup)
    if speedup > 1 and policy.tcp_user_timeout is None:
        fast = fast.model_copy(update={"tcp_user_timeout": TCP_GIVE_UP_S / speedup})
    return fast


def gateway_config(
    scenario: Scenario, policy: LivenessPolicy, redis: RedisServer, run: RunDir, origin_s: float
) -> GatewayConfig:
    """What the gateway is told; `policy` is in real seconds already."""
    return GatewayConfig(
        redis_url=redis.url,
        key_prefix=redis.key_prefix,
        policy=policy,
        second_login=scenario.sessions.second_login,
        event_log=run.logs / "gateway-node-1.jsonl",
        origin_s=origin_s,
        ready_file=run.logs / "gateway-ready.json",
        seed=scenario.seed,
    )


def start_gateway(
    children: Children, config: GatewayConfig, run: RunDir
) -> tuple[Child, dict[str, Any]]:
    """Start one gateway process and wait until it listens; returns it and its ports.

    Raises:
        ChildDied: it ended at once.
        CannotRun: it does not listen in time.
    """
    path = run.logs / f"gateway-{config.node}.json"
    path.write_text(config.model_dump_json(indent=2))
    gateway = children.start(
        "gateway", _python("reference_server", "--config", str(path)), log=run.logs / "gateway.log"
    )
    assert config.ready_file is not None
    deadline = time.monotonic() + _START_DEADLINE_S
    while not config.ready_file.exists():
        children.check()
        if time.monotonic() > deadline:
            raise CannotRun(
                f"the gateway does not listen after {_START_DEADLINE_S:g} s: {run.logs}/gateway.log"
            )
        time.sleep(0.02)
    ports: dict[str, Any] = orjson.loads(config.ready_file.read_bytes())
    return gateway, ports


def fidelity(plan: Plan) -> list[dict[str, str]]:
    """Which mechanism injects each fault of a plan, and what it cannot show."""
    planned = {fault.fault: fault for fault in plan.faults}
    return [
        {
            "fault": label,
            "mechanism": (done := client_fault(fault.kind, fault.params)).mechanism_for(
                fault.params
            ),
            "cannot_show": done.cannot_show,
        }
        for label, fault in planned.items()
    ]


def _python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def _locust(plan: Plan, run: RunDir, ports: dict[str, Any], origin_s: float) -> list[str]:
    return _python(
        "locust", "--locustfile", str(_LOCUSTFILE), "--headless", "--only-summary", "--with-parent",
        # All users at once: each then waits for its own moment of the plan's ramp.
        *("--users", str(plan.clients), "--spawn-rate", str(plan.clients)),
        *("--run-dir", str(run.path), "--origin-s", repr(origin_s)),
        *("--ws-url", f"ws://127.0.0.1:{ports['port']}/ws"),
        *("--http-url", f"http://127.0.0.1:{ports['http_port']}"),
        *("--csv", str(run.logs / "locust"), "--exit-code-on-error", "0"),
    )  # fmt: skip


def _wait(
    children: Children,
    locust: Child,
    length_s: float,
    run: RunDir,
    progress: Callable[[float], None],
) -> None:
    """Wait for Locust to reach the horizon, however long its start takes."""
    started_s: float | None = None
    waiting_since = time.monotonic()
    while locust.returncode is None:
        children.check()
        now = time.monotonic()
        if started_s is None and any(
            path.stat().st_size for path in run.logs.glob("client-*.jsonl")
        ):
            started_s = now
        began = started_s if started_s is not None else now
        if now - began > length_s + _END_GRACE_S or (
            started_s is None and now - waiting_since > _END_GRACE_S
        ):
            raise CannotRun(f"the generator did not come to its end: {run.logs}/locust.log")
        progress(min(1.0, (now - began) / length_s))
        time.sleep(_TICK_S)
    if locust.returncode != 0:
        raise ChildDied("locust", locust.returncode, locust.log, locust.log_tail())
    progress(1.0)
