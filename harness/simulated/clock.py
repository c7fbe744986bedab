"""Simulated time for everything in the model: callbacks at a moment, and alarms that ring again and again.

A thin layer over SimPy's event queue. A generator process for each heartbeat would cost several times as
much; processes are kept for what is rare (a client that connects).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from simpy import Environment, Event

__all__ = ["Alarm", "Clock"]

Owner = TypeVar("Owner")


class Clock:
    """SimPy's environment and the end of the run. Scenario seconds."""

    def __init__(self, horizon_s: float) -> None:
        self.env = Environment()
        self.horizon_s = horizon_s

    @property
    def now_s(self) -> float:
        """Seconds since the run's origin."""
        return self.env.now

    def at(self, time_s: float, act: Callable[[], None]) -> None:
        """Do something at a moment, at once if that is past. What lies beyond the horizon is dropped."""
        if time_s < self.horizon_s:
            event = self.env.timeout(max(0.0, time_s - self.env.now))
            event.callbacks.append(lambda _: act())

    def after(self, delay_s: float, act: Callable[[], None]) -> None:
        """Do something ``delay_s`` from now."""
        self.at(self.env.now + delay_s, act)


class Alarm(Event, Generic[Owner]):
    """An event that can be set again after it rang: no allocation a beat, unlike SimPy's Timeout.

    It rings at most once for each `set_at`. One that still waits cannot be moved: cancel it and take
    another.
    """

    def __init__(self, clock: Clock, ring: Callable[[Alarm[Owner]], None], owner: Owner) -> None:
        super().__init__(clock.env)
        self.owner = owner
        self._ok = True
        self._value = None
        self._rings = [ring]
        self._horizon_s = clock.horizon_s
        self.at_s = -1.0  # what it was set at last

    def set_at(self, time_s: float) -> None:
        """Ring at a moment, at once if that is past; never beyond the horizon."""
        self.at_s = time_s
        if time_s < self._horizon_s:
            self.callbacks = self._rings
            delay_s = time_s - self.env.now
            self.env.schedule(self, delay=delay_s if delay_s > 0.0 else 0.0)

    def cancel(self) -> None:
        """Do not ring."""
        self.callbacks = []
