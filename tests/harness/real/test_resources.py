"""Resource samples of real processes: the numbers are those of the process, not of its neighbour."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from harness.events.log import read_log
from harness.real.processes.children import Children
from harness.real.resources import ResourceSampler
from reference_server.events import Event, EventKind, Source
from tests.support import wait_until

pytestmark = pytest.mark.real

BUSY = "print('up', flush=True)\nwhile True: pass"
IDLE_WITH_100_FILES = (
    "import time; kept = [open('/dev/null') for _ in range(100)]; block = b'x' * (50 << 20)\n"
    "print('up', flush=True); time.sleep(600)"
)
FORKING = "import os, time; os.fork(); print('up', flush=True); time.sleep(600)"


def samples(path: Path, role: str) -> list[Event]:
    events = read_log(path).events if path.exists() else []
    closing = [event for event in events if event.kind is EventKind.LOG_CLOSED]
    assert closing in ([], events[-1:]), "at the end alone"
    taken = events[: len(events) - len(closing)]
    assert all(e.kind is EventKind.RESOURCES and e.source is Source.HARNESS for e in taken)
    return [event for event in taken if event.detail["role"] == role]


def test_each_role_gets_its_own_numbers(tmp_path: Path) -> None:
    path = tmp_path / "harness-1.jsonl"
    origin_s = time.monotonic()
    with Children() as children:
        pids = {}
        for role, script in (("busy", BUSY), ("idle", IDLE_WITH_100_FILES), ("forking", FORKING)):
            child = children.start(role, [sys.executable, "-c", script], log=tmp_path / role)
            wait_until(child.log.read_bytes, f"{role} is up")
            pids[role] = child.pid
        with ResourceSampler(pids, path, origin_s, interval_s=0.1):
            wait_until(lambda: all(len(samples(path, role)) >= 4 for role in pids), "some samples of each")
        ended_s = time.monotonic() - origin_s
        size = path.stat().st_size
    busy, idle, forking = (samples(path, role) for role in pids)
    # A busy loop has what the machine leaves it, an idle process at most a tick (10 ms) of 0.1 s.
    busiest = max(event.detail["cpu_percent"] for event in busy)
    assert busiest > 2 * max(event.detail["cpu_percent"] for event in idle)
    assert busiest > 20.0
    assert all(event.detail["descriptors"] >= 103 for event in idle)
    assert all(event.detail["descriptors"] < 100 for event in busy)
    assert all(event.detail["rss_bytes"] >= 50 << 20 for event in idle)
    assert {event.detail["pid"] for event in busy} == {pids["busy"]}
    assert len({event.detail["pid"] for event in forking}) == 2, "a fork is sampled by itself"
    assert all(0.0 <= event.time_s <= ended_s for event in busy)
    assert path.stat().st_size == size, "nothing is written after the context"


def test_processes_may_end_and_appear_while_it_runs(tmp_path: Path) -> None:
    path = tmp_path / "harness-1.jsonl"
    with Children() as children:
        first = children.start("first", [sys.executable, "-c", BUSY], log=tmp_path / "first")
        pids = {"first": first.pid}
        with ResourceSampler(pids, path, time.monotonic(), interval_s=0.05):
            wait_until(lambda: samples(path, "first"), "the first one is sampled")
            children.stop(first)
            pids["second"] = os.getpid()
            wait_until(lambda: samples(path, "second"), "the second one is sampled")
