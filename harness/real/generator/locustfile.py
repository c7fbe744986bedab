"""The Locust suite: one Locust user is one client of the plan.

`flatline run` starts it with a plan and a run directory. Alone it works against any running gateway, with
Locust's own options (`-u -r -t --headless --csv --html --processes --master --worker --config`):

    flatline serve
    flatline locust --headless -u 500 -r 100 --run-dir FOLDER
    flatline locust --headless -u 2000 -t 10m --shape spike --processes 2
"""

from __future__ import annotations

import gc
import math
import sys
from functools import cache
from typing import Any

import gevent
from gevent.pool import Group
from locust import User, argument_parser, constant, events, runners, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from harness.real.generator.client import Client
from harness.real.generator.locust_test import Suite
from harness.real.generator.shared import OnRequest
from harness.real.generator.target_client import client_of
from harness.real.locust_options import add_options
from harness.real.processes.die_with_parent import die_with_parent
from reference_server.errors import Exit, FlatlineError
from reference_server.websocket.listener import raise_descriptor_limit

_USERS_MADE_A_SECOND = 2000  # by all workers of a slow machine together
_SILENT_S = 10  # in place of Locust's 3: so long a worker of a busy machine may take to begin


@events.init_command_line_parser.add_listener
def _options(parser: LocustArgumentParser) -> None:
    add_options(parser.add_argument_group("flatline"))
    parser.add_argument(
        "--origin-s",
        type=float,
        default=None,
        include_in_web_ui=False,
        help="CLOCK_MONOTONIC at the run's origin; default: now",
    )
    parser.add_argument(
        "--has-real-middle",
        action="store_true",
        include_in_web_ui=False,
        help="the scenario's box on the path is a real proxy",
    )
    parser.add_argument(
        "--has-real-round-trip",
        action="store_true",
        include_in_web_ui=False,
        help="the round trip is made elsewhere: answers are sent at once",
    )
    parser.add_argument(
        "--await-urls",
        action="store_true",
        include_in_web_ui=False,
        help="begin once the URLs are in the run directory",
    )
    parser.add_argument(
        "--with-parent",
        action="store_true",
        include_in_web_ui=False,
        help="end when the process that started this one ends",
    )


@events.init.add_listener
def _prepare(environment: Environment, **_: Any) -> None:
    """Find out what is wrong with the options before the first client is spawned."""
    options = environment.parsed_options
    if options is None:
        return
    if options.with_parent or (options.worker and options.processes):
        die_with_parent()  # Locust's forks would look for a master that is gone for another minute
    raise_descriptor_limit()
    # A worker that makes thousands of users says nothing meanwhile, and its master would take it for dead.
    silent_s = (options.num_users or 0) // _USERS_MADE_A_SECOND
    runners.HEARTBEAT_LIVENESS = _SILENT_S + silent_s
    runners.MASTER_HEARTBEAT_TIMEOUT += silent_s
    # A minute after a worker's death Locust would begin anew with the others: first with few clients, so it stops most.
    runners.HEARTBEAT_DEAD_INTERNAL = -math.inf
    # A worker asks for them once for each option of each message that tells it to spawn: a stall of 0.2 s and more.
    argument_parser.default_args_dict = cache(argument_parser.default_args_dict)
    try:
        environment.flatline = Suite(environment, _request_events(environment))
    except (FlatlineError, OSError, ValueError) as error:
        # Locust prints a traceback for anything else; the reason is what helps here.
        print(f"flatline: {error}", file=sys.stderr)
        raise SystemExit(getattr(error, "exit_code", Exit.BAD_INPUT)) from error
    # A full collection looks at every object of every client: a stall that grows with them. None of them needs one.
    gc.collect()
    gc.freeze()
    gc.set_threshold(2_000, 1, 100_000)  # the others come often, and have little to look at
    # Imports have kept the loop from its clock: Locust's --run-time would end that much too early.
    gevent.get_hub().loop.update_now()


@events.test_start.add_listener
def _start(environment: Environment, **_: Any) -> None:
    environment.flatline.start()


@events.test_stop.add_listener
def _stop(environment: Environment, **_: Any) -> None:
    environment.flatline.stop()


@events.quitting.add_listener
def _judge(environment: Environment, **_: Any) -> None:
    if (code := environment.flatline.judge()) is not None:
        environment.process_exit_code = code


@events.test_stopping.add_listener
def _let_everybody_go(environment: Environment, **_: Any) -> None:
    """Stop the users before Locust does: it spawns a greenlet for each, 8 KiB for as long as that takes.

    The run is over before they end: what their ends do to the gateway is no part of it.
    """
    environment.flatline.stop()
    if environment.runner is not None:
        for greenlet in list(environment.runner.user_greenlets):
            greenlet.args[0].stop(force=True)


class LivenessClient(User):
    """One client of the plan, from its login to its fault or the horizon.

    It has no greenlet of its own: the event loop calls it. Locust wants one to count and to stop its users by; the
    one it gets is never started, so it has no stack and weighs half a kilobyte instead of eight.
    """

    wait_time = constant(0)

    def start(self, group: Group) -> gevent.Greenlet[..., Any]:
        """Begin one life; a client that its fault has ended does not come back."""
        suite: Suite = self.environment.flatline
        self._group = group
        self._greenlet: Any = gevent.Greenlet(_never_run, self)
        group.add(self._greenlet)
        index = suite.free_indices.take()
        # Kept until the user is stopped: a client that is let go closes its socket, which is an event.
        self._client: Client | None = None
        if index is not None and (g := suite.generator) is not None and g.running:
            self._client = client_of(index, g)
            self._client.start(paced=suite.paced)
        return self._greenlet

    def stop(self, force: bool = False) -> bool:
        """End it: at once and in order, so there is nothing to wait for."""
        if self._client is not None:
            self._client.leave()
            self.environment.flatline.free_indices.give_back(self._client.index)
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
            request_type=kind,
            name=name,
            response_time=milliseconds,
            response_length=0,
            exception=error,
            context={},
        )

    return on_request
