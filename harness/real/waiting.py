"""Wait for a real run to come to its end: watch the children, let things happen on time, tell the progress.

Starts nothing; what happens on time is given to it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from harness.real.cannot import CannotRun
from harness.real.processes import Child, ChildDied, Children
from reference_server.events import EventKind, decode

__all__ = ["Ticker", "wait_for_the_end"]

_TICK_S = 0.1
_END_GRACE_S = 60.0  # Locust's own wind-up after the horizon

Ticker = Callable[[float, float], float]
"""Given now and the plan's time zero, both on CLOCK_MONOTONIC, does what is due; returns when to come again."""


def wait_for_the_end(
    children: Children,
    locust: Child,
    *,
    origin_s: float,
    length_s: float,
    logs: Path,
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
        logs: where the clients log.
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
            begun_s = _begun_s(logs)
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


def _begun_s(logs: Path) -> float | None:
    """When the first generator began, seconds since the run's origin; None: none has."""
    begun = []
    for path in logs.glob("client-*.jsonl"):
        with path.open("rb") as file:
            line = file.readline()
        if line.endswith(b"\n"):
            event = decode(line)
            if event.kind is EventKind.RUN_STARTED:
                begun.append(event.time_s)
    return min(begun, default=None)
