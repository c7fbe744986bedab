"""What the processes of a run use: CPU, memory and descriptors, once a second, as `resources` events.

From the pids of a run's processes to an event log of its own; their forks are sampled as well, each
as a process of the same role. Judges nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import psutil

from reference_server.event_log import EventWriter
from reference_server.events import Event, EventKind, Source

__all__ = ["RepeatingThread", "ResourceSampler", "usage_of"]


def usage_of(process: psutil.Process) -> dict[str, Any]:
    """Return pid, CPU use since the last look (100 % is one core), resident bytes and descriptors of a process.

    Raises:
        psutil.NoSuchProcess, psutil.AccessDenied: it has ended, or is a zombie.
    """
    with process.oneshot():
        return {
            "pid": process.pid,
            "cpu_percent": process.cpu_percent(),
            "rss_bytes": process.memory_info().rss,
            # Linux says how many since 6.2; else they are counted one by one, tens of thousands of sockets a second.
            "descriptors": _stated_descriptors(process.pid) or process.num_fds(),
        }


def _stated_descriptors(pid: int) -> int:
    try:
        return Path(f"/proc/{pid}/fd").stat().st_size
    except OSError:
        return 0


class RepeatingThread:
    """A thread that calls something at once and then every so many real seconds, while the context lasts."""

    def __init__(self, step: Callable[[], None], interval_s: float) -> None:
        self._step, self._interval_s = step, interval_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        due_s = time.monotonic()
        while True:
            self._step()
            due_s = max(due_s + self._interval_s, time.monotonic())
            if self._stop.wait(due_s - time.monotonic()):
                return


class ResourceSampler(RepeatingThread):
    """Samples processes for as long as the context lasts.

    A process's first sample is one interval after it was first seen: CPU use needs two looks. A process that has
    ended is passed over.

    Args:
        pids: role (``gateway/node-1``: role and node) to pid. Read anew at each sample, so a process
            started later may be added.
        path: event log to append to.
        origin_s: CLOCK_MONOTONIC at the run's origin.
        interval_s: real seconds from sample to sample.
    """

    def __init__(self, pids: Mapping[str, int], path: Path, origin_s: float, interval_s: float = 1.0) -> None:
        super().__init__(self._sample_all, interval_s)
        self._pids, self._origin_s = pids, origin_s
        self._out = EventWriter(path)
        self._known: dict[int, psutil.Process] = {}

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)
        self._out.close()

    def _sample_all(self) -> None:
        # Once for all of them: to ask each for its forks is to walk every process of the machine as often.
        forks: dict[int, list[int]] = {}
        for process in psutil.process_iter(["ppid"]):
            forks.setdefault(process.info["ppid"], []).append(process.pid)
        for name, pid in list(self._pids.items()):
            for event in self._sample(name, pid, forks):
                self._out.write(event)
        self._out.flush()

    def _sample(self, name: str, pid: int, forks: Mapping[int, list[int]]) -> list[Event]:
        role, _, node = name.partition("/")
        events = []
        family = [pid]
        for one in family:
            family += forks.get(one, ())
        for one in family:
            try:
                process = self._process(one)
                detail = {"role": role} | usage_of(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue  # it ended in between; a zombie has no descriptors to count
            if process.pid not in self._known:
                self._known[process.pid] = process
                continue
            time_s = time.monotonic() - self._origin_s
            events.append(Event(time_s, Source.HARNESS, EventKind.RESOURCES, node=node, detail=detail))
        return events

    def _process(self, pid: int) -> psutil.Process:
        """Return the object that remembers the process's last CPU times, or a new one."""
        known = self._known.get(pid)
        if known is not None and known.is_running():  # not another process with its number
            return known
        self._known.pop(pid, None)
        return psutil.Process(pid)
