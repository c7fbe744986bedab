"""How many clients there are when: a Locust `LoadTestShape` for `--shape ramp | step | spike | soak`.

    ramp  ▁▃▅▇█████   step  ▁▁▃▃▅▅██   spike  ▂▂▂██▂▂▂   soak  ▅██████▅

From `-u` (the most), `-t` (the length; without it the scenario's) to a number of users each second. None is
active unless asked for: Locust would take any shape that it found in the locustfile.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from locust import LoadTestShape

__all__ = ["COURSES", "Course"]

_STEPS = 5
_BASE = 0.2

# (share of the length, share of the most), joined by straight lines.
COURSES: Mapping[str, tuple[tuple[float, float], ...]] = MappingProxyType(
    {
        "ramp": ((0.0, 0.0), (0.6, 1.0), (1.0, 1.0)),
        "step": tuple(
            (edge / _STEPS, (step + 1) / _STEPS)
            for step in range(_STEPS)
            for edge in (step, step + 1)
        ),
        "spike": ((0.0, _BASE), (0.4, _BASE), (0.4, 1.0), (0.6, 1.0), (0.6, _BASE), (1.0, _BASE)),
        "soak": ((0.0, 0.0), (0.1, 1.0), (0.9, 1.0), (1.0, 0.0)),
    }
)


class Course(LoadTestShape):
    """One of the courses.

    Args:
        name: of `COURSES`.
        most: clients at its highest.
        length_s: real seconds.
    """

    abstract = True  # made by whoever asks for one, not by Locust
    use_common_options = True

    def __init__(self, name: str, most: int, length_s: float) -> None:
        super().__init__()
        self.most, self.length_s = most, length_s
        self._points = COURSES[name]

    @property
    def rises_for_s(self) -> float:
        """Until there are as many clients as there ever are, real seconds."""
        return next(at for at, share in self._points if share == 1.0) * self.length_s

    def users(self, time_s: float) -> int:
        """How many there are at a time: one at least."""
        at = time_s / self.length_s
        before = [point for point in self._points if point[0] <= at]
        after = [point for point in self._points if point[0] > at]
        if not after:
            share = self._points[-1][1]
        else:
            (x0, y0), (x1, y1) = before[-1], after[0]
            share = float(np.interp(at, (x0, x1), (y0, y1)))
        return max(1, round(share * self.most))

    def tick(self) -> tuple[int, float] | None:
        """How many users there are to be now, and how many a second may come to that; None: the end."""
        time_s = self.get_run_time()
        return None if time_s >= self.length_s else (self.users(time_s), float(self.most))
