"""What keeps all clients of a process alive without a greenlet of their own: who can be read, what is due.

    sockets ──► one epoll ──┐
                            ├──► gevent's hub ──► client.on_readable() · a step that is due
    one heap of steps ──────┘
    what has to wait (logging in, shaking hands) ──► a greenlet, lent for as long as that takes

A parked greenlet weighs 8 KiB, an entry in an epoll next to nothing. Callbacks run in the hub: they must not
block, and gevent raises if they do. Knows nothing of sessions, heartbeats or faults.
"""

from __future__ import annotations

import heapq
import select
import traceback
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Any, Protocol

import gevent
import gevent.monkey

__all__ = ["ClientEventLoop", "Reader"]

# Monkey-patching takes epoll away because waiting in it would stop the hub; here it is only ever asked.
_epoll: Callable[[], select.epoll] = getattr(select, "epoll", None) or gevent.monkey.get_original(
    "select", "epoll"
)
_EPOLLIN = 0x001
_READ = 1  # libev
_MAXPRI = 2  # libev: before the watchers of greenlets that wait
_MOST_AT_ONCE = 256  # sockets that the kernel is asked for at a time
_MOST_ROUNDS = 64  # of these before the hub looks at its timers again
_MOST_WAITING = 1000  # greenlets: logins and handshakes under way at a time
_FEW_WAITING = 32  # while the loop is late: newcomers must not keep the connected ones from answering
_LATE_S = 0.05


class Reader(Protocol):
    """Whoever wants to know that a socket can be read."""

    def on_readable(self) -> None:
        """Read what is there; do not block."""


class ClientEventLoop:
    """Watches sockets and time for the clients of one process. `start` before use, `stop` at the end."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._epoll = _epoll()
        self._readers: dict[int, Reader] = {}
        self._steps: list[tuple[float, int, Callable[[], None]]] = []
        self._ties = count()
        self._armed_s = float("inf")
        self._timer: Any = None
        self._io: Any = None
        self._waiting: deque[Callable[[], None]] = deque()
        self._greenlets = 0
        self._late_s = 0.0  # of the last step that was due
        self._stopped = False

    def start(self) -> None:
        """Begin to serve."""
        self._io = gevent.get_hub().loop.io(self._epoll.fileno(), _READ, priority=_MAXPRI)
        self._io.start(self._on_readable)
        self._arm()

    def stop(self) -> None:
        """Serve nobody any more; sockets stay as they are."""
        self._stopped = True
        self._waiting.clear()
        for watcher in (self._io, self._timer):
            if watcher is not None:
                watcher.stop()
                watcher.close()
        self._io = self._timer = None
        self._readers.clear()
        self._steps.clear()

    # -- sockets ---------------------------------------------------------------------------------

    def watch(self, descriptor: int, reader: Reader) -> None:
        """Call the reader whenever the socket can be read, or has ended."""
        if self._stopped:
            return
        with suppress(FileExistsError):  # watched for someone else before
            self._epoll.register(descriptor, _EPOLLIN)
        self._readers[descriptor] = reader

    def ignore(self, descriptor: int) -> None:
        """Do not look at a socket any more. One that is closed is forgotten by the kernel itself."""
        if self._readers.pop(descriptor, None) is not None:
            with suppress(OSError):  # closed meanwhile
                self._epoll.unregister(descriptor)

    def _on_readable(self) -> None:
        readers = self._readers
        # All that are ready, not some: a loop whose turns take long would fall behind for ever.
        for _ in range(_MOST_ROUNDS):
            ready = self._epoll.poll(0, _MOST_AT_ONCE)
            for descriptor, _events in ready:
                reader = readers.get(descriptor)
                if reader is None:
                    continue  # one served just before has ended it
                try:
                    reader.on_readable()
                except Exception:
                    # A fault of ours, not of the connection. Told once: the socket stays readable for ever.
                    traceback.print_exc()
                    self.ignore(descriptor)
            if len(ready) < _MOST_AT_ONCE:
                return

    # -- time ------------------------------------------------------------------------------------

    def at(self, time_s: float, step: Callable[[], None]) -> None:
        """Call once when the clock shows this time, or at once if it has; ties in the order of asking."""
        heapq.heappush(self._steps, (time_s, next(self._ties), step))
        if time_s < self._armed_s:
            self._arm()

    def _arm(self) -> None:
        if self._io is None or not self._steps:
            return
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
        self._armed_s = self._steps[0][0]
        self._timer = gevent.get_hub().loop.timer(max(0.0, self._armed_s - self._now_s()))
        self._timer.start(self._on_time, update=True)

    def _on_time(self) -> None:
        steps = self._steps
        now_s = self._now_s()
        self._late_s = now_s - steps[0][0] if steps else 0.0
        self._armed_s = float("-inf")  # what is added meanwhile does not set the timer each time
        while steps and steps[0][0] <= now_s:
            try:
                heapq.heappop(steps)[2]()
            except Exception:
                traceback.print_exc()
        self._armed_s = float("inf")
        self._arm()

    # -- what takes waiting ------------------------------------------------------------------------

    def run_in_greenlet(self, job: Callable[[], None]) -> None:
        """Run a job that may block, in a greenlet; above a thousand at a time it waits for its turn.

        In a loop that is late there are far fewer at a time: a thousand handshakes are half a second's work,
        and those who are connected already would miss their heartbeats for them.
        """
        if self._stopped:
            return
        self._waiting.append(job)
        if self._greenlets < (_MOST_WAITING if self._late_s < _LATE_S else _FEW_WAITING):
            self._greenlets += 1
            gevent.spawn(self._work)

    def _work(self) -> None:
        try:
            while self._waiting and (self._late_s < _LATE_S or self._greenlets <= _FEW_WAITING):
                try:
                    self._waiting.popleft()()
                except Exception:
                    traceback.print_exc()
        finally:
            self._greenlets -= 1
