"""One test of Locust's as a run of ours: its directory, its plan, its generator; alone, as a master, as a worker.

    master, or alone: scenario ─► plan ─► run directory ──┐  (Locust tells its workers the options)
    worker, or alone:                                     └─► generator ─► clients' event log

On another host a worker gets the plan by message, and its log goes back the same way (`remote_workers.py`).

From Locust's options to a run that `flatline report` can measure. A master has no clients; it ends the run at
the horizon and says which workers were lost. With `--shape` the number of clients varies over the run (`RampShape`):

    ramp  ▁▃▅▇█████   step  ▁▁▃▃▅▅██   spike  ▂▂▂██▂▂▂   soak  ▅██████▅
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gevent
import numpy as np
from locust import LoadTestShape
from locust.dispatch import UsersDispatcher
from locust.env import Environment
from locust.runners import STATE_MISSING, STATE_STOPPING, MasterRunner, WorkerNode, WorkerNodes, WorkerRunner

from harness.live.run import LOOK_EVERY_S, LiveRun
from harness.real.generator.gateway_client import Target
from harness.real.generator.remote_workers import Coordinator, WorkerHost, in_order_of_dispatch
from harness.real.generator.shard import ClientIndexPool, WorkerShard
from harness.real.generator.shared import Generator, OnRequest
from harness.real.generator.web_ui import LivenessPages
from harness.real.locust_options import SHAPES
from harness.real.tls import check_insecure
from harness.runs.directory import RunDir, new_run
from reference_server.errors import Exit, FlatlineError
from reference_server.event_log import EventWriter
from reference_server.events import Event, EventKind, Source
from scenarios.load import dump_scenario, load_scenario
from scenarios.plan import Plan, make_plan
from scenarios.schema import Scenario

__all__ = ["RampShape", "Suite"]

_PATIENCE_S = 2.0


class RampShape(LoadTestShape):
    """How many clients there are when, as a Locust `LoadTestShape`.

    Args:
        name: of `SHAPES`.
        most: clients at its highest.
        length_s: real seconds.
    """

    abstract = True  # made by whoever asks for one, not by Locust
    use_common_options = True

    def __init__(self, name: str, most: int, length_s: float) -> None:
        super().__init__()
        self.most, self.length_s = most, length_s
        self._points = SHAPES[name]

    @property
    def rises_for_s(self) -> float:
        """Until there are as many clients as there ever are, real seconds."""
        return next(at for at, share in self._points if share == 1.0) * self.length_s

    def users(self, time_s: float) -> int:
        """How many there are at a time: one at least."""
        at = time_s / self.length_s
        before = [point for point in self._points if point[0] <= at]
        after = [point for point in self._points if point[0] > at]
        if not after:
            share = self._points[-1][1]
        else:
            (x0, y0), (x1, y1) = before[-1], after[0]
            share = float(np.interp(at, (x0, x1), (y0, y1)))
        return max(1, round(share * self.most))

    def tick(self) -> tuple[int, float] | None:
        """How many users there are to be now, and how many a second may come to that; None: the end."""
        time_s = self.get_run_time()
        return None if time_s >= self.length_s else (self.users(time_s), float(self.most))


class _FixedShares(UsersDispatcher):
    """Locust's own, but for this: once fixed, each worker keeps its share of the clients, whoever comes or goes.

    Locust would deal all of them out anew: healthy clients would be stopped at one worker, to begin at another.
    """

    _fixed = False

    def fix(self) -> list[str]:
        """Let nobody else take part; return the workers that do."""
        self._fixed = True
        return [worker.id for worker in self._worker_nodes]

    @property
    def dispatch_in_progress(self) -> bool:
        """Say so for good: then Locust does not send everybody's share anew when a worker comes or goes."""
        return self._fixed or super().dispatch_in_progress

    def add_worker(self, worker_node: WorkerNode) -> None:
        """Leave out who comes in mid-test; a worker that was taken for dead has its share still."""
        if not self._fixed:
            super().add_worker(worker_node)

    def remove_worker(self, worker_node: WorkerNode) -> None:
        """Go on as if it were there: what it is sent is lost."""
        if not self._fixed:
            super().remove_worker(worker_node)


class _Workers(WorkerNodes):
    """Locust's own, but for this: some may go while somebody looks through all of them."""

    @property
    def all(self) -> list[WorkerNode]:
        """Those that are there now."""
        return list(self._worker_nodes.values())


_LOOK_S = 0.5
_URLS_POLL_S = 0.01
_LAST_LINES_S = 0.5  # until every log is written out
_CLOCK_HOLDS_S = 60.0  # on another host it is set anew now and then


@dataclass(frozen=True, slots=True)
class _Run:
    directory: RunDir
    scenario: Scenario
    plan: Plan
    origin_s: float
    paced: bool  # clients come at the plan's moments; otherwise when Locust spawns them


class Suite:
    """What the locustfile's listeners do. One test after the other, as a web UI may start them.

    Args:
        environment: Locust's, with a runner.
        on_request: told about connects and heartbeats.

    Raises:
        ScenarioError, OSError, ValueError: what the options ask for cannot be read.
    """

    def __init__(self, environment: Environment, on_request: OnRequest) -> None:
        assert environment.parsed_options is not None
        self.options: Namespace = environment.parsed_options
        self._environment = environment
        self._on_request = on_request
        self.generator: Generator | None = None  # of the test that runs; a master has none
        self.free_indices = ClientIndexPool(WorkerShard(), 0)
        self._run: _Run | None = None
        self._start_s = 0.0
        self._background: list[Any] = []
        self._exports = getattr(self.options, "otel", False) and not self._is_worker
        self._live = _live_run(environment, self._exports)
        self._follower: Any = None
        runner = environment.runner
        self._coordinator: Coordinator | None = None
        self._worker_host = WorkerHost(runner) if isinstance(runner, WorkerRunner) else None
        if isinstance(runner, MasterRunner):
            self._coordinator = Coordinator(runner)
            there, runner.clients = runner.clients, _Workers()
            runner.clients.update(there)
        self._lost: set[str] = set()
        self._has_no_workers = False  # the test lost all of them
        environment.dispatcher_class = _FixedShares
        self.options.enable_rebalancing = False
        target = _target(self.options)  # refused here; a worker elsewhere is told the URLs when it begins
        if not self._is_worker:
            _refuse_a_second_run(self.options)
            scenario = self._scenario()
            if self.options.headless and not self.options.with_parent:
                _refuse_where_nobody_listens([*target.http_urls, *target.ws_urls])
            if self.options.shape:
                length_s = self.options.run_time or scenario.clock.real_s(scenario.horizon_s)
                self.options.run_time = None  # Locust would wait for it after the shape's end
                environment.shape_class = RampShape(
                    self.options.shape, self.options.num_users or scenario.clients, length_s
                )
                environment.shape_class.runner = environment.runner

    @property
    def _is_worker(self) -> bool:
        return isinstance(self._environment.runner, WorkerRunner)

    @property
    def paced(self) -> bool:
        """Whether each client waits for its moment of the plan's ramp."""
        return self._run is not None and self._run.paced

    # -- a test begins and ends --------------------------------------------------------------------

    def start(self) -> None:
        """Begin a test: the plan's time zero is now, for all workers alike; or once the server is there."""
        if self.options.await_urls and not self._is_worker:
            self._await_urls(RunDir(Path(self.options.run_dir)))
        self._run = run = self._join() if self._is_worker else self._begin()
        runner = self._environment.runner
        if isinstance(runner, MasterRunner):
            assert self._coordinator is not None
            # What is in the options reaches the workers with Locust's first message to them.
            shares = runner._users_dispatcher
            assert isinstance(shares, _FixedShares)
            names = in_order_of_dispatch(shares.fix())
            try:
                self._coordinator.wait_ready(names)
            except BaseException:  # stopped in the web UI: the next test deals clients out anew
                runner._users_dispatcher = None
                raise
            self._coordinator.begin(run.directory, names)
            self._lost, self._has_no_workers = set(), False
            self._start_s = time.monotonic() - run.origin_s
            self.options.flatline_run = {
                "directory": str(run.directory.path.resolve()),
                "origin_s": run.origin_s,
                "start_s": self._start_s,
                "paced": run.paced,
                "workers": names,
            }
            for silent in runner.clients.missing:
                called = self._coordinator.name(silent.id)
                print(f"flatline: worker {called} is silent: the run begins without it", flush=True)
            self._background = [gevent.spawn(self._watch_workers)]
        else:
            shard = self._shard()
            self.free_indices = ClientIndexPool(shard, run.plan.clients)
            self.generator = Generator(
                run.scenario,
                run.plan,
                _target(self.options),
                run.directory,
                run.origin_s,
                shard,
                on_request=self._on_request,
                has_real_middle=self.options.has_real_middle,
                has_real_round_trip=self.options.has_real_round_trip,
            )
            told = getattr(self.options, "flatline_run", None) if self._is_worker else None
            self.generator.start(told["start_s"] if told else None)
            self._start_s = self.generator.start_s
            if self._worker_host is not None:
                self._worker_host.serve(self.generator, run.directory.logs)
        self._background.append(gevent.spawn(self._end_at_the_horizon))
        if self._live is not None:
            if self._follower is not None:
                self._follower.kill()
            self._live.follow(run.scenario.name, run.plan, run.directory.logs, run.scenario.clock)
            self._follower = gevent.spawn(self._look, self._live)

    def _await_urls(self, run: RunDir) -> None:
        while not run.urls.exists():
            gevent.sleep(_URLS_POLL_S)
        found = run.read_json(run.urls)
        self.options.ws_url, self.options.http_url = found["ws"], found["http"]

    def stop(self) -> None:
        """End a test: its log is whole afterwards."""
        if self.generator is not None:
            self.generator.stop()
        if self._worker_host is not None:
            self._worker_host.relay()
        background, self._background = self._background, []
        gevent.killall([one for one in background if one is not gevent.getcurrent()])
        runner = self._environment.runner
        if isinstance(runner, MasterRunner) and getattr(self.options, "flatline_run", None):
            self._log_lost([worker.id for worker in runner.clients.missing])
            if background and self._lost and not self._left(runner):
                self._has_no_workers = True
                print("flatline: the run has no workers any more: it ends", flush=True)
                gevent.spawn(self._end_of_locust)  # by itself it would stop, and wait
            _let_go_of_the_silent(runner)
            gevent.spawn(self._await_stopped, runner)

    @staticmethod
    def _await_stopped(runner: MasterRunner) -> None:
        """Let go of workers that fall silent while it stops, too: Locust would call it "stopping" for good."""
        while runner.state == STATE_STOPPING:
            _let_go_of_the_silent(runner)
            runner.check_stopped()
            gevent.sleep(_LOOK_S)

    def judge(self) -> int | None:
        """Measure and report a test that had a gateway's log beside its own; return the exit code.

        None where there is nothing to judge: a worker, a run that `flatline run` will judge, no gateway's log.
        """
        run = self._run
        if self._live is not None and self._exports:  # for the last time at the process's end
            gevent.sleep(_LAST_LINES_S)
            self._live.look()
        if run is None or self._is_worker or (run.paced and self.options.with_parent):
            return None
        logged = any(run.directory.logs.glob("gateway-*.jsonl"))
        if not logged or not run.directory.gateway_configs():
            # No log of a gateway, or nobody knows from when its clock counts.
            return Exit.MACHINE_CANNOT if self._has_no_workers else None
        # In a process of its own: this one's standard library is gevent's.
        argv = [sys.executable, "-m", "harness", "report", str(run.directory.path)]
        return subprocess.run(argv, check=False).returncode

    # -- the plan ------------------------------------------------------------------------------

    def _scenario(self, **changes: Any) -> Scenario:
        options = self.options
        if options.run_dir and (kept := RunDir(Path(options.run_dir))).scenario.exists():
            return load_scenario(str(kept.scenario), **changes)
        return load_scenario(options.scenario, **changes)

    def _begin(self) -> _Run:
        options, runner = self.options, self._environment.runner
        given = RunDir(Path(options.run_dir)) if options.run_dir else None
        origin_s = time.monotonic() if options.origin_s is None else options.origin_s
        if given is not None and given.plan.exists():
            return _Run(given, self._scenario(), Plan.load(given.plan), origin_s, paced=True)
        scenario = self._scenario()
        shape = self._environment.shape_class
        if isinstance(shape, RampShape):
            clients, ramp_s, length_s = shape.most, shape.rises_for_s, shape.length_s
        else:
            assert runner is not None
            clients = max(1, runner.target_user_count)
            ramp_s = clients / (options.spawn_rate or 1)
            length_s = options.run_time or ramp_s + scenario.clock.real_s(scenario.duration)
        if length_s <= ramp_s:
            raise SystemExit(
                f"flatline: --run-time {length_s:g} s is over before {clients} clients are there "
                f"({ramp_s:g} s): a higher --spawn-rate, or a longer --run-time"
            )
        scenario = self._scenario(
            clients=clients,
            ramp=scenario.clock.scenario_s(max(ramp_s, 1e-3)),
            duration=scenario.clock.scenario_s(length_s - ramp_s),
        )
        plan = make_plan(scenario)
        run = given or new_run(Path("runs"), f"locust-{scenario.name}")
        run.logs.mkdir(parents=True, exist_ok=True)
        plan.save(run.plan)
        run.scenario.write_text(dump_scenario(scenario))
        print(f"flatline: event log in {run.logs}; measure it with: flatline report {run.path}")
        return _Run(run, scenario, plan, _origin_s(run, origin_s), paced=False)

    def _join(self) -> _Run:
        assert self._worker_host is not None
        told = self.options.flatline_run
        elsewhere = self._worker_host.elsewhere
        run = self._worker_host.own_copy() if elsewhere else RunDir(Path(told["directory"]))
        if not run.plan.exists():
            raise SystemExit(f"flatline: the master's run directory is not here: {run.path}")
        scenario, plan = load_scenario(str(run.scenario)), Plan.load(run.plan)
        return _Run(run, scenario, plan, self._worker_host.origin_s(told["origin_s"]), told["paced"])

    def _shard(self) -> WorkerShard:
        if not self._is_worker:
            return WorkerShard()
        names = self.options.flatline_run["workers"]
        assert isinstance(self._environment.runner, WorkerRunner)
        return WorkerShard(names.index(self._environment.runner.client_id), len(names))

    @staticmethod
    def _look(live: LiveRun) -> None:
        while True:  # after the run, too: the last lines of others come a second later
            live.look(lambda: gevent.sleep(0))
            live.elapse()
            gevent.sleep(LOOK_EVERY_S)

    # -- while it runs -----------------------------------------------------------------------------

    def _end_at_the_horizon(self) -> None:
        run, runner = self._run, self._environment.runner
        assert run is not None and runner is not None
        horizon_s = self._start_s + run.scenario.clock.real_s(run.plan.horizon_s)
        while (left_s := horizon_s - self._now_s(run)) > 0:
            gevent.sleep(min(left_s, _CLOCK_HOLDS_S))
        if self._coordinator is not None:
            assert isinstance(runner, MasterRunner)
            for name in self.options.flatline_run["workers"]:
                while not self._coordinator.is_done(name) and name in self._left(runner):
                    gevent.sleep(_LOOK_S / 10)
        # Before the clients end: what their ends do to the gateway is not part of the run.
        self.stop()
        if self._worker_host is not None:
            self._worker_host.finish()
            return  # the master ends it
        self._end_of_locust()

    def _end_of_locust(self) -> None:
        runner = self._environment.runner
        assert runner is not None
        web = self._environment.web_ui
        if web is not None and web._swarm_greenlet is not None:  # it would go on sending clients to workers
            web._swarm_greenlet.kill()
            web._swarm_greenlet = None
        ends: Callable[[], None] = runner.quit if self.options.headless else runner.stop
        ends()

    def _now_s(self, run: _Run) -> float:
        """Real seconds since the run's origin; on another host the generator keeps the clock."""
        return self.generator.now_s() if self.generator else time.monotonic() - run.origin_s

    def _left(self, runner: MasterRunner) -> set[str]:
        """The run's workers that are there now: one that was taken for dead may be again."""
        there = {worker.id for worker in runner.clients.all if worker.state != STATE_MISSING}
        return there.intersection(self.options.flatline_run["workers"])

    def _watch_workers(self) -> None:
        """Log each worker that is gone; a run without any is over."""
        runner = self._environment.runner
        assert isinstance(runner, MasterRunner)
        while left := self._left(runner):
            self._log_lost(set(self.options.flatline_run["workers"]) - left)
            gevent.sleep(_LOOK_S)
        self._log_lost(self.options.flatline_run["workers"])
        self.stop()

    def _log_lost(self, workers: Collection[str]) -> None:
        """Log workers of the run that are gone, once, with the number of clients that went with each."""
        run, names = self._run, self.options.flatline_run["workers"]
        assert run is not None and self._coordinator is not None
        lost = [name for name in workers if name in names and name not in self._lost]
        if not lost:
            return  # and no log: an empty one is missing evidence
        with EventWriter(run.directory.log("harness", f"master-{os.getpid()}")) as log:
            for name in lost:
                self._lost.add(name)
                clients = WorkerShard(names.index(name), len(names)).count(run.plan.clients)
                called = self._coordinator.name(name)
                print(f"flatline: worker {called} died, and {clients} clients with it", flush=True)
                detail = {"worker": called, "clients": clients}
                now_s = time.monotonic() - run.origin_s
                log.write(Event(now_s, Source.HARNESS, EventKind.WORKER_LOST, detail=detail))


def _let_go_of_the_silent(runner: MasterRunner) -> None:
    """Forget workers that are silent, and tell them to quit, should they ever wake."""
    for worker in runner.clients.missing:
        runner.send_message("quit", client_id=worker.id)
        del runner.clients[worker.id]


def _live_run(environment: Environment, exports: bool) -> LiveRun | None:
    """What follows the runs for Locust's web UI and its OpenTelemetry; None: nobody looks, and nothing is read."""
    live: LiveRun | None = None
    if exports:
        with suppress(ImportError):  # Locust has said so
            from harness.live.otel import observed_run

            live = observed_run()
    if environment.web_ui is not None:
        live = live or LiveRun()
        LivenessPages(environment, live)
    return live


def _target(options: Namespace) -> Target:
    """Where the server is, and whom the clients trust.

    Raises:
        CannotRun: to trust anybody, where others could be in the middle.
    """
    ws_urls, http_urls = options.ws_url.split(","), options.http_url.split(",")
    if options.tls_insecure:
        check_insecure([*ws_urls, *http_urls], "--tls-insecure")
    return Target(tuple(ws_urls), tuple(http_urls), options.tls_ca, not options.tls_insecure)


def _refuse_where_nobody_listens(urls: list[str]) -> None:
    """Send no clients to where nothing is: each would find out by itself, again and again.

    Raises:
        FlatlineError: every address refuses.
    """
    for url in urls:
        there = urlsplit(url)
        port = there.port or (443 if there.scheme in ("https", "wss") else 80)
        try:
            socket.create_connection((there.hostname, port), timeout=_PATIENCE_S).close()
        except ConnectionRefusedError:
            continue
        except OSError:  # the clients say what it is
            return
        return
    raise FlatlineError(
        f"nobody listens at {', '.join(urls)}; allowed: after `flatline serve` in another terminal, or with --ws-url "
        "and --http-url of a server that runs"
    )


def _refuse_a_second_run(options: Namespace) -> None:
    if options.run_dir and RunDir(Path(options.run_dir)).client_logs():
        print(f"flatline: {options.run_dir} holds a run already", file=sys.stderr)
        raise SystemExit(Exit.BAD_INPUT)


def _origin_s(run: RunDir, otherwise_s: float) -> float:
    """The origin of the run's clock: a gateway that logs there already counts from its own."""
    return next((config.origin_s for config in run.gateway_configs()), otherwise_s)
