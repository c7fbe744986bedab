"""The Locust suite: one Locust user is one client of the plan.

`flatline run` starts it with a plan and a run directory. Alone it works against any running gateway:

    flatline serve
    locust -f harness/real/locustfile.py --headless -u 200 -r 100 --scenario host_crash
"""

from __future__ import annotations

import itertools
import os
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import gevent
from gevent.pool import Group
from locust import User, constant, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from harness.faults import Plan, make_plan
from harness.real.client import Client
from harness.real.generator import Generator, OnRequest
from harness.real.processes import die_with_parent
from harness.real.target import Target
from harness.rundir import RunDir, new_run
from scenarios.load import ScenarioError, dump_scenario, load_scenario


@events.init_command_line_parser.add_listener
def _options(parser: LocustArgumentParser) -> None:
    group = parser.add_argument_group("flatline")
    group.add_argument("--scenario", default="demo", env_var="FLATLINE_SCENARIO",
                       help="built-in scenario or file; its number of clients is replaced by -u")  # fmt: skip
    group.add_argument("--run-dir", default="", env_var="FLATLINE_RUN_DIR",
                       help="write the event log there; default: a new directory under runs/")  # fmt: skip
    group.add_argument("--ws-url", default="ws://127.0.0.1:8765/ws", env_var="FLATLINE_WS_URL",
                       help="the gateway's WebSocket endpoint; several nodes: separated by commas")  # fmt: skip
    group.add_argument("--http-url", default="http://127.0.0.1:8766", env_var="FLATLINE_HTTP_URL",
                       help="the gateway's HTTP API; several nodes: commas, in the same order")  # fmt: skip
    parser.add_argument("--origin-s", type=float, default=None, include_in_web_ui=False,
                       help="CLOCK_MONOTONIC at the run's origin; default: now")  # fmt: skip
    parser.add_argument("--with-parent", action="store_true", include_in_web_ui=False,
                       help="end when the process that started this one ends")  # fmt: skip


@events.init.add_listener
def _prepare(environment: Environment, **_: Any) -> None:
    """Load the scenario and the plan before the first client is spawned."""
    options = environment.parsed_options
    if options is None:
        return
    if options.with_parent:
        die_with_parent()
    try:
        environment.flatline = _generator(options, _request_events(environment))
    except (ScenarioError, OSError, ValueError) as error:
        # Locust prints a traceback for anything else; the reason is what helps here.
        raise SystemExit(f"flatline: {error}") from error


def _generator(options: Namespace, on_request: OnRequest) -> Generator:
    given = RunDir(Path(options.run_dir)) if options.run_dir else None
    if given is not None and given.plan.exists():
        scenario, plan = load_scenario(str(given.scenario)), Plan.load(given.plan)
        run = given
    else:
        scenario = load_scenario(options.scenario, clients=options.num_users or 1)
        plan = make_plan(scenario)
        run = given or new_run(Path("runs"), f"locust-{scenario.name}")
        run.logs.mkdir(parents=True, exist_ok=True)
        plan.save(run.plan)
        run.scenario.write_text(dump_scenario(scenario))
        print(f"flatline: event log in {run.logs}; measure it with: flatline report {run.path}")
    origin_s = time.monotonic() if options.origin_s is None else options.origin_s
    log = run.logs / f"client-{os.getpid()}.jsonl"
    target = Target(tuple(options.ws_url.split(",")), tuple(options.http_url.split(",")))
    return Generator(scenario, plan, target, log, origin_s, on_request=on_request)


@events.test_start.add_listener
def _start(environment: Environment, **_: Any) -> None:
    generator: Generator = environment.flatline
    generator.start()
    gevent.spawn(_quit_at_the_horizon, environment, generator)


@events.test_stop.add_listener
def _stop(environment: Environment, **_: Any) -> None:
    environment.flatline.stop()


def _quit_at_the_horizon(environment: Environment, generator: Generator) -> None:
    gevent.sleep(max(0.0, generator.horizon_s - generator.now_s()))
    generator.stop()  # before the clients end: what their ends do to the gateway is not part of the run
    if environment.runner is not None:
        environment.runner.quit()


@events.test_stopping.add_listener
def _let_everybody_go(environment: Environment, **_: Any) -> None:
    """Stop the users before Locust does: it spawns a greenlet for each, 8 KiB for as long as that takes."""
    if environment.runner is not None:
        for greenlet in list(environment.runner.user_greenlets):
            greenlet.args[0].stop(force=True)


class LivenessClient(User):
    """One client of the plan, from its login to its fault or the horizon.

    It has no greenlet of its own: the swarm calls it. Locust wants one to count and to stop its users by; the
    one it gets is never started, so it has no stack and weighs half a kilobyte instead of eight.
    """

    wait_time = constant(0)
    _indices = itertools.count()

    def start(self, group: Group) -> gevent.Greenlet[..., Any]:
        """Begin one life; a client that its fault has ended does not come back."""
        generator: Generator = self.environment.flatline
        self._group = group
        self._greenlet: Any = gevent.Greenlet(_never_run, self)
        group.add(self._greenlet)
        index = next(self._indices)
        # Kept until the user is stopped: a client that is let go closes its socket, which is an event.
        self._client: Client | None = None
        if index < generator.plan.clients:
            self._client = Client(index, generator)
            self._client.start(generator.at_s(generator.plan.connect_at_s(index)))
        return self._greenlet

    def stop(self, force: bool = False) -> bool:
        """End it: at once and in order, so there is nothing to wait for."""
        if self._client is not None:
            self._client.leave()
        self._group.discard(self._greenlet)
        return True

    @task
    def live(self) -> None:
        """What Locust's task ratio shows."""


def _never_run(_user: LivenessClient) -> None:
    raise AssertionError("a user is not started by its greenlet")


def _request_events(environment: Environment) -> OnRequest:
    fire = environment.events.request.fire

    def on_request(kind: str, name: str, milliseconds: float, error: Exception | None) -> None:
        fire(
            request_type=kind, name=name, response_time=milliseconds, response_length=0,
            exception=error, context={},
        )  # fmt: skip

    return on_request
