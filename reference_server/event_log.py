"""Writing the event log: `EventWriter` for every witness, and `Telemetry`, what a gateway process logs with it.

From events to JSON lines of a file. A gateway writes in batches, five times a second: one that is killed loses
0.2 s of its log at most. It also samples how late its loop runs. Without a path nothing is written; the samples
are taken all the same, for whoever wants to know whether the loop keeps up. Reading is `harness/events/log.py`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from reference_server.events import Cause, Event, EventKind, Source, encode
from reference_server.heartbeat.timer_wheel import Clock, Handle

__all__ = ["LAG_SAMPLED_EVERY_S", "EventWriter", "Telemetry", "closing_line"]

ROLE = "gateway"
LAG_SAMPLED_EVERY_S = 0.01  # a stall that begins just after a sample is told so much too short
_FLUSH_EVERY_S = 0.2
_REPORT_LAG_EVERY_S = 0.5
_REPORT_LATENESS_EVERY_S = 1.0

_log = logging.getLogger(__name__)


class EventWriter:
    """Appends events to a file. Nothing is written before `flush`, `close`. Not thread-safe.

    The last line says how many were written before it: a log that was cut or lost lines is known by that.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self._lines: list[bytes] = []
        self._written = 0
        self._last: Event | None = None

    def write(self, event: Event) -> None:
        """Take an event, to be written at the next `flush`."""
        self._lines.append(encode(event))
        self._written += 1
        self._last = event

    def flush(self) -> None:
        """Hand what was taken to the operating system: it survives a SIGKILL from here on.

        Raises:
            OSError: the disk is full; what was to be written is lost.
        """
        data = b"".join(self._lines)
        self._lines.clear()
        while data:
            data = data[self._file.write(data) :]

    def close(self) -> None:
        """Write the last line, flush and close.

        Raises:
            OSError: as `flush`.
        """
        if self._last is not None:
            self._lines.append(encode(closing_line(self._last, self._written)))
        try:
            self.flush()
        finally:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def closing_line(last: Event, lines: int) -> Event:
    """Return what ends a log of so many lines whose last event is this."""
    kind, detail = EventKind.LOG_CLOSED, {"lines": lines}
    return Event(last.time_s, last.source, kind, node=last.node, detail=detail)


class Telemetry:
    """Event log and loop lag of one gateway process.

    Args:
        path: appended to; None: nothing is written.
        origin_s: ``CLOCK_MONOTONIC`` at the run's origin; times are counted from it.
        node: named in every event.
        clock: the loop's.
        lateness: takes the figures of how late heartbeats were sent, once a second.
    """

    def __init__(
        self,
        path: Path | None,
        origin_s: float,
        node: str,
        clock: Clock,
        lateness: Callable[[], dict[str, Any] | None],
    ) -> None:
        self._origin_s = origin_s
        self._node = node
        self._clock = clock
        self._lateness = lateness
        self._out: EventWriter | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._out = EventWriter(path)
        self._timers: dict[str, Handle] = {}
        self._max_lag_s = 0.0  # since the last report
        self._max_lag_before_s = 0.0  # in the report before that
        self._sample_due_s = float("inf")

    def start(self) -> None:
        """Begin to flush and to sample."""
        self._sample_lag(due_s=self._clock.now_s())
        if self._out is not None:
            self._every("flush", _FLUSH_EVERY_S, self.flush)
        self._every("lag", _REPORT_LAG_EVERY_S, self._report_lag)
        self._every("lateness", _REPORT_LATENESS_EVERY_S, self._report_lateness)

    def log(
        self,
        kind: EventKind,
        session_id: str = "",
        connection_id: str = "",
        cause: Cause | None = None,
        **detail: Any,
    ) -> None:
        """Note that something happened now."""
        if self._out is not None:
            time_s = self._clock.now_s() - self._origin_s
            about = (session_id, connection_id, self._node, cause or "", detail)
            self._out.write(Event(time_s, Source.GATEWAY, kind, *about))

    def recent_lag_s(self) -> float:
        """Return how late the loop has been at most in about the last second, this moment included."""
        overdue_s = self._clock.now_s() - self._sample_due_s
        return max(self._max_lag_s, self._max_lag_before_s, overdue_s, 0.0)

    def flush(self) -> None:
        """Hand what was noted to the operating system."""
        if self._out is not None:
            self._try(self._out.flush)

    @staticmethod
    def _try(write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:  # a full disk ends the log, not the gateway
            _log.error("event log: %s; a part of it is lost", error)

    def close(self) -> None:
        """Write the last samples and close."""
        for timer in self._timers.values():
            timer.cancel()
        if self._out is None:
            return
        if self._timers:
            self._report_lag()
            self._report_lateness()
        self._try(self._out.close)
        self._out = None

    def _every(self, name: str, period_s: float, do: Callable[[], None]) -> None:
        def again() -> None:
            self._timers[name] = self._clock.call_later(period_s, again)
            do()

        self._timers[name] = self._clock.call_later(period_s, again)

    def _sample_lag(self, due_s: float) -> None:
        now_s = self._clock.now_s()
        self._max_lag_s = max(self._max_lag_s, now_s - due_s)
        self._sample_due_s = due_s = now_s + LAG_SAMPLED_EVERY_S
        self._timers["sample"] = self._clock.call_later(LAG_SAMPLED_EVERY_S, lambda: self._sample_lag(due_s))

    def _report_lag(self) -> None:
        self.log(EventKind.LOOP_LAG, max_lag_s=round(self._max_lag_s, 6), role=ROLE, pid=os.getpid())
        self._max_lag_before_s, self._max_lag_s = self._max_lag_s, 0.0

    def _report_lateness(self) -> None:
        figures = self._lateness()
        if figures is not None:
            self.log(EventKind.HEARTBEAT_LATENESS, **figures)
