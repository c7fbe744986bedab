"""The clock of a run: what a second of the scenario is in real time, and back.

A real run may go faster than its scenario says. Policy and faults are then that much shorter; round trips, the
kernel's timers and the machine's own work are not. Results are told in scenario time. Every conversion is made
here: no other module multiplies or divides by the speedup. Reads no clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

__all__ = ["SCENARIO_TIME", "RunClock"]


class _Number(Protocol):
    def __mul__(self, factor: float, /) -> Self: ...
    def __truediv__(self, divisor: float, /) -> Self: ...


class _Scalable(Protocol):
    def scaled(self, factor: float) -> Self: ...


class _Policy(Protocol):
    def faster(self, factor: float) -> Self: ...


_N = TypeVar("_N", bound=_Number)
_S = TypeVar("_S", bound=_Scalable)
_P = TypeVar("_P", bound=_Policy)


@dataclass(frozen=True, slots=True)
class RunClock:
    """How many seconds of the scenario pass in one real second.

    Raises:
        ValueError: a speedup that is not above 0.
    """

    speedup: float = 1.0

    def __post_init__(self) -> None:
        if not self.speedup > 0:
            raise ValueError(f"speedup {self.speedup:g}; allowed: above 0")

    @property
    def is_real_time(self) -> bool:
        """Whether a second of the scenario is a real one."""
        return self.speedup == 1.0

    def real_s(self, scenario_s: _N) -> _N:
        """How long a stretch of the scenario takes in a real run. Seconds; a number, an array or a column."""
        return scenario_s / self.speedup

    def scenario_s(self, real_s: _N) -> _N:
        """What a stretch of real time is in the scenario. Seconds; a number, an array or a column."""
        return real_s * self.speedup

    def seen(self, real: _S) -> _S:
        """The law of a real time, such as a round trip, as the scenario's clock sees it."""
        return real if self.is_real_time else real.scaled(self.speedup)

    def sped_up(self, policy: _P) -> _P:
        """The policy or detector that a real run has: each of its times as much shorter."""
        return policy.faster(self.speedup)


SCENARIO_TIME = RunClock()
"""The clock of a simulation: it has nothing that cannot be sped up."""
