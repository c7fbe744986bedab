"""`flatline serve`: the reference gateway and a Redis, until Ctrl-C, for clients that somebody else drives."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from harness.real.engine import real_policy
from harness.real.nodes import Nodes, gateway_config
from harness.real.processes import Children, end_on_sigterm
from harness.real.redis_server import redis_server
from harness.rundir import new_run
from reference_server.ledger_table import ledger_url, shown_url
from scenarios.load import dump_scenario
from scenarios.schema import Scenario

__all__ = ["serve_forever"]


def serve_forever(
    scenario: Scenario,
    port: int,
    http_port: int,
    root: Path,
    redis_url: str | None,
    ledger: str | None,
    say: Callable[[str], None],
) -> None:
    """Serve a scenario's policy on 127.0.0.1 until interrupted; every child ends with it.

    ``ledger`` is a URL or the path of an SQLite file; None: one in the run directory.

    Raises:
        RedisUnavailable: no Redis.
        ChildDied: the gateway ended (its port is taken, for instance).
    """
    run = new_run(root, f"serve-{scenario.name}")
    # The clients must go at the speedup of the policy that is served.
    run.scenario.write_text(dump_scenario(scenario))
    try:
        with (
            end_on_sigterm(),
            Children() as children,
            redis_server(redis_url, children, run.logs) as redis,
        ):
            policy = real_policy(scenario.liveness, scenario.speedup)
            config = gateway_config(scenario, policy, redis, run, time.monotonic()).model_copy(
                update={
                    "port": port,
                    "http_port": http_port,
                    "ledger_url": ledger_url(ledger or run.path / "ledger.db"),
                }
            )
            nodes = Nodes(children, run, [config])
            nodes.wait()
            ws, http = nodes.ws_urls, nodes.http_urls
            say(
                f"gateway: {ws}\nhttp:    {http}\nredis:   {redis.url}\n"
                f"ledger:  {shown_url(config.ledger_url or '')}\nlogs:    {run.logs}"
            )
            say(
                "drive it: locust -f harness/real/locustfile.py --headless -u 200 -r 100 "
                f"--scenario {run.scenario} --ws-url {ws} --http-url {http}"
            )
            while True:
                children.check()
                time.sleep(0.2)
    except KeyboardInterrupt:
        say("stopped")
