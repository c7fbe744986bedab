"""Workers on other hosts: they share neither disk nor clock with the run. Told over Locust's own messages.

    worker                                   master, where the run directory is
    here: where it is ─────────────────────►
    asks for the time ──────────────────────►        20 times, then once a second (`clock.py`)
          ◄──────────────────── the master's clock
    ready ──────────────────────────────────►        all ready? the test begins
          ◄──────────────────────── scenario, plan   to those elsewhere; then Locust's spawn messages
    batches of its event log ───────────────►        a file of the run directory (`relay.py`)
          ◄─────────────────────── acknowledged
    done ───────────────────────────────────►        all done, or dead: the run ends

A worker of the same host says that it is there and when it is done, no more: it opens the run directory itself.
One elsewhere converts its times to the run's clock as it logs them; how far they may be off is logged with them
(``clock``). What a worker has sent before it dies is kept.
"""

from __future__ import annotations

import os
import re
import socket
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gevent
import psutil
from locust.env import Environment
from locust.runners import STATE_RUNNING, STATE_SPAWNING, MasterRunner, WorkerRunner

from harness.events.tail import CLIENT_LOGS, LogTail
from harness.real.generator.clock import ClockEstimator, Offset
from harness.real.generator.relay import Batch, Receiver, Sender
from harness.real.generator.shared import Generator
from harness.real.resources import usage_of
from harness.runs.directory import RunDir
from reference_server.events import Event, EventKind, Source

__all__ = ["Coordinator", "WorkerHost", "in_order_of_dispatch"]


_AGAIN_S = 0.5  # from one "here" to the next, until there is an answer
_FIRST_QUESTIONS = 20
_BETWEEN_FIRST_S = 0.02
_BETWEEN_QUESTIONS_S = 1.0
_RELAY_S = 0.1
_READY_DEADLINE_S = 30.0
_DRAIN_DEADLINE_S = 20.0
_LOOK_S = 0.05


@dataclass(slots=True)
class _Known:
    """A worker as the master knows it."""

    name: str
    elsewhere: bool
    ready: bool = False
    done: bool = False
    log: Path | None = None
    receiver: Receiver = field(default_factory=Receiver)


class Coordinator:
    """The master's half."""

    def __init__(self, runner: MasterRunner) -> None:
        self._runner = runner
        self._known: dict[str, _Known] = {}
        self._logs: Path | None = None
        for kind, listener in (
            ("flatline_here", self._on_here),
            ("flatline_ask", self._on_ask),
            ("flatline_ready", self._on_ready),
            ("flatline_log", self._on_log),
            ("flatline_done", self._on_done),
        ):
            runner.register_message(kind, listener)

    def wait_ready(self, workers: Collection[str]) -> None:
        """Return when every worker has said where it is, and knows the time if it is elsewhere.

        Raises:
            SystemExit: not in time.
        """
        deadline_s = time.monotonic() + _READY_DEADLINE_S
        while late := [w for w in workers if w not in self._known or not self._known[w].ready]:
            if time.monotonic() > deadline_s:
                names = ", ".join(late)
                raise SystemExit(f"flatline: not ready in {_READY_DEADLINE_S:g} s: {names}")
            gevent.sleep(_LOOK_S)

    def begin(self, run: RunDir, workers: Collection[str]) -> None:
        """A test begins: send its plan to those who do not see the run directory."""
        self._logs = run.logs
        for worker in workers:
            known = self._known[worker]
            known.done, known.receiver = False, Receiver()
            known.log = run.log("client", known.name)
            if known.elsewhere:
                files = {"scenario": run.scenario.read_bytes(), "plan": run.plan.read_bytes()}
                self._runner.send_message("flatline_plan", files, client_id=worker)

    def name(self, worker: str) -> str:
        """What people call a worker: its host and process id; one that died before it said so: its id."""
        return self._known[worker].name if worker in self._known else worker

    def is_done(self, worker: str) -> bool:
        """Whether a worker has come to the horizon, and all of its log is here."""
        return self._known[worker].done

    # -- what workers say ----------------------------------------------------------------------

    def _on_here(self, environment: Environment, msg: Any) -> None:
        is_new = msg.node_id not in self._known
        if is_new:
            name = re.sub(r"[^\w.-]", "_", msg.data["name"])
            if any(known.name == name for known in self._known.values()):
                name = f"{name}-{len(self._known)}"  # hosts of one name, and equal process ids
            elsewhere = msg.data["place"] != _place()
            self._known[msg.node_id] = _Known(name, elsewhere, ready=not elsewhere)
        known = self._known[msg.node_id]
        is_late = known.log is None and self._runner.state in (STATE_SPAWNING, STATE_RUNNING)
        if is_late and is_new:
            print(f"flatline: worker {known.name} came when the run had begun: it waits", flush=True)
        answer = {"elsewhere": known.elsewhere, "clock": _clock(), "late": is_late}
        self._runner.send_message("flatline_welcome", answer, client_id=msg.node_id)

    def _on_ask(self, environment: Environment, msg: Any) -> None:
        answer = {"asked_s": msg.data["asked_s"], "now_s": time.monotonic()}
        self._runner.send_message("flatline_time", answer, client_id=msg.node_id)

    def _on_ready(self, environment: Environment, msg: Any) -> None:
        self._known[msg.node_id].ready = True

    def _on_log(self, environment: Environment, msg: Any) -> None:
        known = self._known[msg.node_id]
        data = known.receiver.take(Batch(msg.data["number"], msg.data["data"]))
        if data:
            assert known.log is not None
            with known.log.open("ab") as file:
                file.write(data)
        got = {"number": known.receiver.last}
        self._runner.send_message("flatline_got", got, client_id=msg.node_id)

    def _on_done(self, environment: Environment, msg: Any) -> None:
        self._known[msg.node_id].done = True


class WorkerHost:
    """The worker's half."""

    def __init__(self, runner: WorkerRunner) -> None:
        self._runner = runner
        self.name = f"{socket.gethostname()}-{os.getpid()}"
        self.elsewhere = False  # known before the master begins a test
        self._welcomed = False
        self._same_clock = True
        self._clock = ClockEstimator()
        self._sender = Sender()
        self._tail: LogTail | None = None
        self._files: dict[str, bytes] = {}
        self._folder: tempfile.TemporaryDirectory[str]
        self._generator: Generator | None = None
        self._master_origin_s = 0.0
        self._process = psutil.Process()
        for kind, listener in (
            ("flatline_welcome", self._on_welcome),
            ("flatline_time", self._on_time),
            ("flatline_plan", self._on_plan),
            ("flatline_got", self._on_got),
        ):
            runner.register_message(kind, listener)
        gevent.spawn(self._introduce)

    def _introduce(self) -> None:
        while not self._welcomed:
            self._send("flatline_here", name=self.name, place=_place())
            gevent.sleep(_AGAIN_S)
        if not self.elsewhere:
            return
        asked = 0
        while not self._same_clock and (asked < _FIRST_QUESTIONS or self._offset() is None):
            self._ask()
            asked += 1
            gevent.sleep(_BETWEEN_FIRST_S)
        self._send("flatline_ready")

    # -- a test ----------------------------------------------------------------------------------

    def own_copy(self) -> RunDir:
        """A run directory of this worker's own, with the plan that the master sent; `serve` takes it away."""
        self._folder = tempfile.TemporaryDirectory(prefix="flatline-worker-")
        run = RunDir(Path(self._folder.name))
        run.logs.mkdir()
        run.scenario.write_bytes(self._files["scenario"])
        run.plan.write_bytes(self._files["plan"])
        return run

    def origin_s(self, master_origin_s: float) -> float:
        """The run's origin, given on the master's clock, on this process's."""
        self._master_origin_s = master_origin_s
        if self._same_clock:
            return master_origin_s
        offset = self._offset()
        assert offset is not None, "the master waits until the clock is known"
        return master_origin_s - offset.offset_s

    def serve(self, generator: Generator, logs: Path) -> None:
        """Elsewhere: send the log as it grows and keep the clock, until the generator has stopped."""
        if not self.elsewhere:
            return
        self._generator, self._sender = generator, Sender()
        self._tail = LogTail(logs, CLIENT_LOGS)
        self._tail.find_files()
        # Its files live on while they are open: nothing is left of a worker that is killed.
        self._folder.cleanup()
        gevent.spawn(self._serve, generator)

    def _serve(self, generator: Generator) -> None:
        next_sample_s = 0.0
        while generator.running:
            self.relay()  # first: a log begins with the run's start
            if time.monotonic() >= next_sample_s:
                next_sample_s = time.monotonic() + _BETWEEN_QUESTIONS_S
                self._sample(generator)
            gevent.sleep(_RELAY_S)

    def relay(self) -> bool:
        """Send what is new, or late; say whether anything is left that the master has not got."""
        if self._tail is None:
            return False
        for line in self._tail.new_lines():
            self._sender.add(line + b"\n")
        for batch in self._sender.due(time.monotonic()):
            self._send("flatline_log", number=batch.number, data=batch.data)
        return not self._sender.done

    def finish(self) -> None:
        """The generator has come to the horizon: send the rest of its log, then say so."""
        deadline_s = time.monotonic() + _DRAIN_DEADLINE_S
        while self.relay():
            if time.monotonic() > deadline_s:
                print("flatline: the master has not got all of this worker's log", flush=True)
                break
            gevent.sleep(_RELAY_S)
        self._send("flatline_done")

    def _sample(self, generator: Generator) -> None:
        """Log how well the clock is known, and what this process uses."""
        offset = None if self._same_clock else self._offset()
        if offset is not None:
            self._ask()
            detail = {"worker": self.name, "offset_s": offset.offset_s, "bound_s": offset.bound_s}
            generator.log(EventKind.CLOCK, detail=detail)
        detail = {"role": "generator"} | usage_of(self._process)
        event = Event(generator.now_s(), Source.HARNESS, EventKind.RESOURCES, detail=detail)
        generator.write(event)

    def _offset(self) -> Offset | None:
        return self._clock.offset(time.monotonic())

    def _ask(self) -> None:
        self._send("flatline_ask", asked_s=time.monotonic())

    def _send(self, kind: str, **data: Any) -> None:
        self._runner.send_message(kind, data)

    # -- what the master says ------------------------------------------------------------------

    def _on_welcome(self, environment: Environment, msg: Any) -> None:
        self.elsewhere = msg.data["elsewhere"]
        self._same_clock = msg.data["clock"] == _clock()
        self._welcomed = True
        if msg.data["late"]:
            print("flatline: the run has begun without this worker; it waits for the next one", flush=True)

    def _on_time(self, environment: Environment, msg: Any) -> None:
        self._clock.add(msg.data["asked_s"], msg.data["now_s"], time.monotonic())
        if self._generator is not None:
            self._generator.origin_s = self.origin_s(self._master_origin_s)

    def _on_plan(self, environment: Environment, msg: Any) -> None:
        self._files = msg.data

    def _on_got(self, environment: Environment, msg: Any) -> None:
        self._sender.acknowledged(msg.data["number"])


def in_order_of_dispatch(workers: Collection[str]) -> list[str]:
    """Workers as Locust's dispatcher serves them: the first ones get one more user where it does not divide.

    Every host's first worker, then every host's second one, and so on; by name. A worker's id is its host's
    name, an underscore and something random.
    """
    places: Counter[str] = Counter()
    order = []
    for worker in sorted(workers):
        host = worker.split("_")[0]
        order.append((places[host], worker))
        places[host] += 1
    return [worker for _, worker in sorted(order)]


def _clock() -> str:
    """Processes that say the same here read the same CLOCK_MONOTONIC."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/time').readlink()}"
    except OSError:
        return f"{socket.gethostname()} {uuid.getnode()}"


def _place() -> str:
    """Processes that say the same here see the same clock and the same files."""
    try:
        return f"{_clock()} {Path('/proc/self/ns/mnt').readlink()}"
    except OSError:
        return _clock()
