"""What the processes of a run use: CPU, memory and descriptors, once a second, as `resources` events.

From the pids of a run's processes to an event log of its own; their forks are sampled as well, each
as a process of the same role. Judges nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from reference_server.event_log import EventWriter
from reference_server.events import Event, EventKind, Source

__all__ = ["ResourceSampler"]


class ResourceSampler:
    """A thread that samples processes for as long as the context lasts.

    A process's first sample is one interval after it was first seen: CPU use needs two looks. 100 %
    is one core. A process that has ended is passed over.

    Args:
        pids: role (``gateway/node-1``: role and node) to pid. Read anew at each sample, so a process
            started later may be added.
        path: event log to append to.
        origin_s: CLOCK_MONOTONIC at the run's origin.
        interval_s: real seconds from sample to sample.
    """

    def __init__(
        self, pids: Mapping[str, int], path: Path, origin_s: float, interval_s: float = 1.0
    ) -> None:
        self._pids, self._path = pids, path
        self._origin_s, self._interval_s = origin_s, interval_s
        self._known: dict[int, psutil.Process] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="resources", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with EventWriter(self._path) as out:
            due_s = time.monotonic()
            while True:
                for name, pid in list(self._pids.items()):
                    for event in self._sample(name, pid):
                        out.write(event)
                out.flush()
                due_s = max(due_s + self._interval_s, time.monotonic())
                if self._stop.wait(due_s - time.monotonic()):
                    return

    def _sample(self, name: str, pid: int) -> list[Event]:
        role, _, node = name.partition("/")
        events = []
        try:
            root = self._process(pid)
            family = [root, *(self._process(fork.pid) for fork in root.children(recursive=True))]
        except psutil.NoSuchProcess:
            return []
        for process in family:
            try:
                with process.oneshot():
                    cpu_percent = process.cpu_percent()
                    detail = {
                        "role": role,
                        "pid": process.pid,
                        "cpu_percent": cpu_percent,
                        "rss_bytes": process.memory_info().rss,
                        "descriptors": process.num_fds(),
                    }
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue  # it ended in between; a zombie has no descriptors to count
            if process.pid not in self._known:
                self._known[process.pid] = process
                continue
            time_s = time.monotonic() - self._origin_s
            events.append(
                Event(time_s, Source.HARNESS, EventKind.RESOURCES, node=node, detail=detail)
            )
        return events

    def _process(self, pid: int) -> psutil.Process:
        """Return the object that remembers the process's last CPU times, or a new one."""
        known = self._known.get(pid)
        if known is not None and known.is_running():  # not another process with its number
            return known
        self._known.pop(pid, None)
        return psutil.Process(pid)
