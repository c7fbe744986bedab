"""What goes on in a run, as one object that terminal, web page and metrics read: its phase and its counts.

From the names of phases and the event logs of a run directory, followed while they grow, to numbers. Whoever has a
thread or a greenlet to spare calls `look` once a second; without a look nothing is read and nothing costs. Draws
nothing, and decides nothing: the report measures.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from harness.events.tail import LogTail
from harness.live.counts import COLUMNS, LiveCounts, counts_for_something
from reference_server.events import Event, EventKind, Source, decode
from scenarios.clock import RunClock
from scenarios.plan import Plan

__all__ = ["LOOK_EVERY_S", "LiveRun"]

LOOK_EVERY_S = 1.0
_LINES_AT_A_TIME = 500  # a long log to catch up with must not keep others waiting
_SIMULATED = "simulation.jsonl"  # its witness is none of the real run's


class LiveRun:
    """A run while it goes on.

    Args:
        on_detection: told (fault, milestone, scenario seconds) of each detection, once.
    """

    def __init__(self, on_detection: Callable[[str, str, float], None] = lambda *_: None) -> None:
        self._on_detection = on_detection
        self._lock = threading.RLock()
        self._tail: LogTail | None = None
        self._held: list[Event] = []
        self._clients_s = 0.0  # how far the clients' logs have come
        self.scenario, self.clients, self._length_s = "", 0, 0.0
        self.phase, self.done = "", 0.0
        self._since: tuple[float, float] = (
            0.0,
            0.0,
        )  # monotonic time at which the phase got going, and how far it was
        self.counts = LiveCounts(on_detection=on_detection)

    def follow(self, scenario: str, plan: Plan, logs: Path, clock: RunClock) -> None:
        """Count the events of a run from now on, those of an earlier one no more.

        Args:
            scenario: its name.
            plan: of the run.
            logs: its `*.jsonl` files may appear later.
            clock: of the run.
        """
        with self._lock:
            self.close()
            self.scenario, self.clients, self._length_s = scenario, plan.clients, clock.real_s(plan.horizon_s)
            self._held, self._clients_s = [], 0.0
            self._tail = LogTail(logs, "*.jsonl", but=_SIMULATED)
            self.counts = LiveCounts(clock, plan.faults, plan.watches, self._on_detection)

    def progress(self, phase: str, done: float) -> None:
        """Note how much of a phase is done, 0 to 1."""
        with self._lock:
            if phase != self.phase or self._since[1] == self.done == 0.0:
                self._since = time.monotonic(), done  # a phase that has not got going has no pace
            self.phase, self.done = phase, done

    def elapse(self) -> None:
        """Take how far the real phase is from its events: for whoever is told of no progress."""
        with self._lock:
            if (began_s := self.counts.began_s) is not None and self._length_s > 0:
                self.progress("real", min(1.0, (self.counts.now_s - began_s) / self._length_s))

    def look(self, pause: Callable[[], None] = lambda: None) -> None:
        """Read what has been logged since the last look; ``pause`` is called now and then in between."""
        with self._lock:
            tail, counts = self._tail, self.counts
        if tail is None:
            return
        tail.find_files()
        for n, line in enumerate(filter(counts_for_something, tail.new_lines()), 1):
            with self._lock, suppress(ValueError):  # a disk that was full tears lines; the report says so
                self._take(decode(line))
            if n % _LINES_AT_A_TIME == 0:
                pause()
        with self._lock:
            held, self._held = self._held, []
            for event in held:
                self._take(event)
            counts.mark()

    def _take(self, event: Event) -> None:
        """Count an event, or keep it until the clients' logs have come as far: they may end the run before it."""
        if event.source is Source.CLIENT:
            self._clients_s = max(self._clients_s, event.time_s)
        elif event.time_s > self._clients_s and event.kind is not EventKind.LOOP_LAG:
            self._held.append(event)
            return
        self.counts.take(event)

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Look once a second in a thread of its own, as long as the context lasts, and once at its end."""
        over = threading.Event()

        def work() -> None:
            while not over.wait(LOOK_EVERY_S):
                self.look(lambda: time.sleep(0))

        thread = threading.Thread(target=work, name="live view", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self.look()
            self.close()

    @contextmanager
    def held(self) -> Iterator[LiveCounts]:
        """Keep the counts as they are while they are read."""
        with self._lock:
            yield self.counts

    def numbers(self) -> dict[str, Any]:
        """Return what a person wants to know, as JSON has it. Real seconds; None: nobody can say."""
        with self._lock:
            counts, (since_s, from_done) = self.counts, self._since
            gone_s, gone = time.monotonic() - since_s, self.done - from_done
            return {
                "scenario": self.scenario,
                "phase": self.phase,
                "done": self.done,
                "left_s": (1.0 - self.done) * gone_s / gone if gone > 0 else None,
                "clients": self.clients,
                "live": counts.live,
                "injected": counts.injected.total(),
                "detected": counts.detected.total(),
                "ghosts": counts.ghosts,
                "in_store": counts.in_store,
                "losses": counts.losses,
                "lag_s": counts.lag_s,
                "worst_lag_s": dict(counts.worst_lag_s),
                "ended": counts.ended,
            }

    def page_data(self) -> dict[str, Any]:
        """Return the numbers, the table and the curve, for the page."""
        columns = [{"key": key, "title": title} for key, title in COLUMNS]
        with self._lock:
            counts = self.counts
            return self.numbers() | {"columns": columns, "rows": counts.rows(), "points": counts.points()}

    def close(self) -> None:
        """Close the logs."""
        if self._tail is not None:
            self._tail.close()
            self._tail = None
