"""`flatline serve`: the reference gateway and a Redis, until Ctrl-C, for clients that somebody else drives."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.real.engine import real_policy, start_store_watch
from harness.real.processes.children import Children, end_on_sigterm
from harness.real.processes.gateways import Nodes, gateway_config
from harness.real.processes.redis import redis_server
from harness.real.processes.redis import shown_url as shown_redis
from harness.runs.directory import new_run
from reference_server.config import GatewayConfig
from reference_server.ledger.table import ledger_url, shown_url
from reference_server.presets import find_preset
from scenarios.load import dump_scenario, load_scenario, parse_scenario
from scenarios.policies import load_policy
from scenarios.schema import Scenario
from scenarios.system_b import environment

__all__ = ["serve_forever", "what_to_serve"]

OURS = "ours"
"""The preset that is served where nothing is said."""


def what_to_serve(
    source: str | Path | None,
    preset: str | None,
    environment_name: str | None,
    speedup: float | None,
    policy: Path | None = None,
) -> Scenario:
    """Return the scenario whose policy is served: a file, a preset, an environment, or some of them together.

    What a file says stands above an environment of system B, and that above the preset; a policy file above all.
    Where nothing is said, this project's own setting is served at its own speed.

    Raises:
        ScenarioError: the file, or what comes out, is no scenario.
        UnknownPresetError: no such preset or environment.
    """
    chosen: dict[str, Any] = {} if speedup is None else {"speedup": speedup}
    if policy is not None:
        chosen["liveness"] = load_policy(policy).model_dump(mode="json")
    if source is None and environment_name is None:
        preset = preset or OURS
    if preset is not None:
        find_preset(preset)
        chosen["preset"] = preset
    if environment_name is None:
        if source is not None:
            return load_scenario(str(source), **chosen)
        return parse_scenario(f"name: {preset}\nduration: 5m", source="--preset", **chosen)
    liveness = environment(environment_name)
    if source is not None:
        told = load_scenario(str(source)).liveness.model_dump(mode="json", exclude_unset=True)
        return load_scenario(str(source), **({"liveness": liveness | told} | chosen))
    chosen = {"preset": "b-as-meant", "liveness": liveness} | chosen
    return parse_scenario(
        f"name: {_as_name(environment_name)}\nduration: 5m", source="--environment", **chosen
    )


def _as_name(text: str) -> str:
    return text.replace(" ", "-")


def _served(scenario: Scenario) -> str:
    """What is served, in a sentence."""
    policy, pace = scenario.liveness, scenario.speedup
    bounds = policy.detection_range_s
    beats = (
        "no heartbeat"
        if bounds is None
        else f"a ping every {policy.interval_s:g} s, {policy.max_failures} unanswered ones end a connection, "
        f"{bounds[0]:g} to {bounds[1]:g} s after a silent death"
    )
    faster = "" if pace == 1 else f"; all of it {pace:g} times as fast (speedup)"
    return f"serves {scenario.name}: {beats}{faster}"


def serve_forever(
    scenario: Scenario,
    port: int,
    http_port: int,
    root: Path,
    redis_url: str | None,
    ledger: str | None,
    say: Callable[[str], None],
    **options: str | int | Path | None,
) -> None:
    """Serve a scenario's policy on 127.0.0.1 until interrupted; every child ends with it.

    Args:
        scenario: whose policy it is.
        port: of the WebSocket.
        http_port: of the API.
        root: folder of run directories.
        redis_url: None: a private Redis.
        ledger: a URL or the path of an SQLite file; None: one in the run directory.
        say: told where everything is.
        options: further keys of the gateway's configuration.

    Raises:
        ValidationError: an option is wrong.
        RedisUnavailable: no Redis.
        ChildDied: the gateway ended (its port is taken, for instance).
    """
    run = new_run(root, f"serve-{scenario.name}")
    # The clients must go at the pace of the policy that is served.
    run.scenario.write_text(dump_scenario(scenario))
    try:
        with end_on_sigterm(), Children() as children, redis_server(redis_url, children, run.logs) as redis:
            policy = real_policy(scenario.liveness, scenario.clock)
            config = gateway_config(scenario, policy, redis, run, time.monotonic())
            keys = config.model_dump() | {
                "port": port,
                "http_port": http_port,
                "ledger_url": ledger_url(ledger or run.ledger_url),
                **options,
            }
            config = GatewayConfig.model_validate(keys)
            nodes = Nodes(children, run, [config])
            nodes.wait()
            start_store_watch(children, redis, run, config.origin_s)
            ws, http = nodes.ws_urls, nodes.http_urls
            say(_served(scenario))
            say(
                f"gateway: {ws}\nhttp:    {http}\nredis:   {shown_redis(redis.url)}\n"
                f"ledger:  {shown_url(config.ledger_url or '')}\nlogs:    {run.logs}"
            )
            say(
                f"drive it: flatline locust --headless -u {scenario.clients} -r 100 "
                f"--run-dir {run.path} --ws-url {ws} --http-url {http}"
                + " --tls-ca CA.pem"
                * (config.tls_certificate is not None)
            )
            say(f"or be a client: {http}/ in a browser; numbers: {http}/metrics")
            while True:
                children.check()
                time.sleep(0.2)
    except KeyboardInterrupt:
        say("stopped")
