"""Virtual time for what runs on the gateway's loop: timers first, then sockets, as libuv goes round."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count


class FakeHandle:
    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        self.call = None


class FakeClock:
    """A loop with a clock that a test moves.

    One round: every timer that is due, then `read_sockets`, then whoever waited for the sockets.
    """

    def __init__(self, start_s: float = 1000.0) -> None:
        self.time_s = start_s
        self.wakeups = 0
        self.sockets_first = True  # False: break the promise of `after_reading`
        self.read_sockets: Callable[[], None] = lambda: None
        self._timers: list[tuple[float, int, FakeHandle]] = []
        self._ties = count()
        self._after: list[Callable[[], None]] = []

    def now_s(self) -> float:
        return self.time_s

    def call_later(self, delay_s: float, call: Callable[[], None]) -> FakeHandle:
        assert delay_s >= 0
        handle = FakeHandle(call)
        heapq.heappush(self._timers, (self.time_s + delay_s, next(self._ties), handle))
        return handle

    def after_reading(self, call: Callable[[], None]) -> None:
        self._after.append(call)

    def stall(self, seconds: float) -> None:
        """Let time pass while the loop is busy with something else."""
        self.time_s += seconds

    def run_until(self, end_s: float) -> None:
        """Go round until nothing is due before ``end_s``."""
        while True:
            self._round()
            if self._after:
                continue
            while self._timers and self._timers[0][2].call is None:
                heapq.heappop(self._timers)
            if not self._timers or max(self._timers[0][0], self.time_s) > end_s:
                self.time_s = max(self.time_s, end_s)
                return
            self.time_s = max(self.time_s, self._timers[0][0])

    def _round(self) -> None:
        # What is set during this round is for a later one: new timers do not run before the sockets,
        # and who waits for the sockets comes on after the next round's timers, as with real loops.
        due = []
        while self._timers and self._timers[0][0] <= self.time_s:
            due.append(heapq.heappop(self._timers)[2])
        waiting, self._after = self._after, []
        for handle in due:
            if handle.call is not None:
                self.wakeups += 1
                handle.call()
        if not self.sockets_first:
            waiting, self._after = waiting + self._after, []
        for call in waiting:
            call()
        self.read_sockets()
