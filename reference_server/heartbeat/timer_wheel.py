"""One timer for very many deadlines: items in buckets of a few milliseconds, the loop woken for the next one.

From items and the time at which each wants to be looked at, to a call when that has come, at most a
grain and the loop's own lag later, never earlier. Knows nothing of heartbeats or connections.

Moving an item to a *later* time costs nothing: it is looked at where it stands, and whoever looks puts
it back. So a deadline that nearly always moves on (an answered ping) is never searched for or removed.
"""

from __future__ import annotations

import math
import time
from asyncio import AbstractEventLoop
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Generic, Protocol, TypeVar

__all__ = ["Clock", "Handle", "LoopClock", "TimerWheel", "Wheeled"]

_LOOP_GRAIN_S = 0.001  # libuv's timers: asked for less, it calls at once and may find nothing due


class Handle(Protocol):
    """A timer that was set."""

    def cancel(self) -> None:
        """Forget it."""


class Clock(Protocol):
    """Time and a way to be called later: the event loop's, or a test's own."""

    def now_s(self) -> float:
        """Seconds, monotonic."""

    def call_later(self, delay_s: float, call: Callable[[], None]) -> Handle:
        """Call once, not before `delay_s` has passed."""

    def after_reading(self, call: Callable[[], None]) -> None:
        """Call once, when all that lay in the sockets by now has been read and handed out."""


class LoopClock:
    """The clock of a running asyncio loop.

    ``now_s`` is ``CLOCK_MONOTONIC`` itself: uvloop's ``time()`` is cut to milliseconds and stands still
    while the loop works.
    """

    __slots__ = ("_loop", "now_s")

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self.now_s = time.monotonic

    def call_later(self, delay_s: float, call: Callable[[], None]) -> Handle:
        """Set a timer, in whole milliseconds rounded up."""
        milliseconds = max(1, math.ceil(delay_s * 1000))
        return self._loop.call_later(milliseconds / 1000, call)

    def after_reading(self, call: Callable[[], None]) -> None:
        """Let the loop go round: callbacks come before the sockets in libuv, and in asyncio's order too.

        One hop would so come before the sockets of the round that it waits for; a timer of 1 ms can
        as well, when the round's other timers take longer than that.
        """
        self._loop.call_soon(self._loop.call_soon, call)


class Wheeled(Protocol):
    """What can stand in a wheel."""

    bucket: int
    """The wheel's own note of where the item stands; 0: nowhere."""


T = TypeVar("T", bound=Wheeled)


class TimerWheel(Generic[T]):
    """Calls ``on_due(item, now_s)`` once for each scheduled item, when its time has come.

    ``most_per_tick`` bounds how long the loop is kept from its sockets: what is left over is served
    after the sockets were read.
    """

    def __init__(
        self,
        clock: Clock,
        on_due: Callable[[T, float], None],
        *,
        grain_s: float = 0.002,
        most_per_tick: int = 256,
    ) -> None:
        self._clock = clock
        self._on_due = on_due
        self._per_s = 1 / grain_s
        self._most = most_per_tick
        self._buckets: dict[int, list[T]] = {}
        self._order: list[int] = []  # heap of the buckets that exist
        self._floor = 1  # first bucket that may still be filled
        self._armed = 0  # bucket that the timer is set for; 0: not set
        self._handle: Handle | None = None

    def schedule(self, item: T, due_s: float) -> None:
        """Have the item looked at when ``due_s`` has come, or earlier if it stands earlier already.

        Raises:
            OverflowError: ``due_s`` is not finite.
        """
        bucket = int(due_s * self._per_s) + 1
        if bucket < self._floor:
            bucket = self._floor
        if 0 < item.bucket <= bucket:
            return
        item.bucket = bucket  # an entry that it has in a later bucket is passed over there
        items = self._buckets.get(bucket)
        if items is not None:
            items.append(item)
            return
        self._buckets[bucket] = [item]
        heappush(self._order, bucket)
        if self._armed == 0 or bucket < self._armed:
            self._arm()

    def stop(self) -> None:
        """Forget every item."""
        self._buckets.clear()
        self._order.clear()
        if self._handle is not None:
            self._handle.cancel()
        self._handle, self._armed = None, 0

    def _arm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._armed = self._order[0]
        wait_s = self._armed / self._per_s - self._clock.now_s()
        self._handle = self._clock.call_later(max(wait_s, _LOOP_GRAIN_S), self._tick)

    def _tick(self) -> None:
        now_s = self._clock.now_s()
        # Armed as long as it works, so that whatever it calls does not set the timer again each time.
        self._handle, self._armed = None, 1
        last = int(now_s * self._per_s)
        left = self._most
        while self._order and self._order[0] <= last and left:
            bucket = self._order[0]
            self._floor = bucket + 1  # what is put back now stands in a bucket after this one
            items = self._buckets[bucket]
            while items and left:
                item = items.pop()
                if item.bucket != bucket:
                    continue
                item.bucket = 0
                left -= 1
                self._on_due(item, now_s)
            if not items:
                heappop(self._order)
                del self._buckets[bucket]
        self._armed = 0
        if self._order:
            self._arm()
