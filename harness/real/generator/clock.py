"""How far is another host's clock from ours? From questions and answers to an offset with a stated bound.

    asked ──────────────► the other reads its clock ──────────────► answered
      └──────────────── round trip, on our clock ───────────────────┘

Somewhere within the round trip the other clock showed what it said, so the offset that puts it in the
middle is wrong by half the round trip at most, whichever way was the slower. Of many questions the one with
the shortest trip says most; clocks drift apart, so its bound grows with its age.

Pure: reads no clock, sends nothing.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

__all__ = ["MAX_DRIFT", "ClockEstimator", "Offset"]

MAX_DRIFT = 200e-6
"""How fast two clocks may drift apart, seconds a second: crystals of 100 ppm each."""
_KEPT = 64  # answers: the best one is among the latest


@dataclass(frozen=True, slots=True)
class Offset:
    """``other clock = own clock + offset_s``, wrong by ``bound_s`` at most. Seconds."""

    offset_s: float
    bound_s: float


@dataclass(frozen=True, slots=True)
class _Answer:
    at_s: float  # own clock, middle of the trip
    offset_s: float
    half_trip_s: float

    def bound_s(self, now_s: float) -> float:
        return self.half_trip_s + MAX_DRIFT * abs(now_s - self.at_s)


class ClockEstimator:
    """The offset of one other clock, from the answers of the last while."""

    def __init__(self) -> None:
        self._answers: deque[_Answer] = deque(maxlen=_KEPT)

    def add(self, asked_s: float, other_s: float, answered_s: float) -> None:
        """Take an answer.

        Args:
            asked_s: own clock when the question left.
            other_s: what the other clock showed meanwhile.
            answered_s: own clock when the answer came.

        Raises:
            ValueError: answered before it was asked.
        """
        if answered_s < asked_s:
            raise ValueError(f"answered at {answered_s} s, before it was asked at {asked_s} s")
        middle_s = (asked_s + answered_s) / 2
        self._answers.append(_Answer(middle_s, other_s - middle_s, (answered_s - asked_s) / 2))

    def offset(self, now_s: float) -> Offset | None:
        """The best answer's offset, and its bound at this time of the own clock; None: no answer yet."""
        best = min(self._answers, key=lambda answer: answer.bound_s(now_s), default=None)
        return None if best is None else Offset(best.offset_s, best.bound_s(now_s))
