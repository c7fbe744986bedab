"""Find the most load that still holds: step up until something breaks, then halve the gap.

    holds   ●     ●        ●            ●  | knee
    breaks                                 |  ×        ×
            start ×factor  ×factor   bisection ◄──────── first break

The knee here is that of service levels: the largest load at which every threshold still held, with the smallest
at which one broke beside it. It is not a bend of a curve: that depends on how the axes are drawn. Pure: what a
step does is the caller's. Source of the definition: Gunther, Guerrilla Capacity Planning, 2007, chapter 4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Knee", "find_knee"]


@dataclass(frozen=True, slots=True)
class Knee:
    """``holds``: the largest load that held, 0 where not even the first did. ``breaks``: the smallest that did
    not, None where everything up to the maximum held. The knee lies in [holds, breaks)."""

    holds: int
    breaks: int | None
    tried: tuple[tuple[int, bool], ...]  # in the order of the trials

    @property
    def is_bracketed(self) -> bool:
        """Whether a load that holds and one that breaks are both known."""
        return self.holds > 0 and self.breaks is not None

    def in_words(self) -> str:
        """The knee and how well it is known."""
        if self.breaks is None:
            return f"not reached: {self.holds:,} clients still hold"
        if not self.holds:
            return f"below {self.breaks:,} clients, the smallest load that was tried"
        return f"between {self.holds:,} clients, which hold, and {self.breaks:,}, which do not"


def find_knee(
    holds: Callable[[int], bool],
    *,
    start: int,
    maximum: int,
    factor: float | None = 2.0,
    step: int | None = None,
    resolution: float = 0.1,
) -> Knee:
    """Step the load up until it breaks, then bisect until the gap is small.

    A load that breaks is not tried again above: a step that breaks by chance makes the knee too small, never too
    large.

    Args:
        holds: runs one load and says whether every threshold held.
        start: the first load.
        maximum: the last load that is tried.
        factor: from one load to the next, above 1; not with ``step``.
        step: the same as a difference.
        resolution: bisection ends when the gap is no more than this share of the load that holds; 1: none.

    Raises:
        ValueError: loads that do not rise, or a resolution that is no share.
    """
    if start < 1 or maximum < start or (step is not None and step < 1):
        raise ValueError(
            f"start {start}, maximum {maximum}, step {step}; allowed: 1 <= start <= maximum"
        )
    if step is None and (factor is None or factor <= 1):
        raise ValueError(f"factor {factor}; allowed: above 1")
    if not 0 < resolution <= 1:
        raise ValueError(f"resolution {resolution}; allowed: above 0, at most 1")
    tried: list[tuple[int, bool]] = []

    def good(load: int) -> bool:
        tried.append((load, holds(load)))
        return tried[-1][1]

    low, high, load = 0, None, start
    while high is None:
        if good(load):
            low = load
            if load >= maximum:
                return Knee(low, None, tuple(tried))
            assert factor is not None or step is not None
            onward = load + step if step is not None else round(load * (factor or 0.0))
            load = min(maximum, max(load + 1, onward))
        else:
            high = load
    while low and high - low > max(1.0, resolution * low):
        middle = (low + high) // 2
        if good(middle):
            low = middle
        else:
            high = middle
    return Knee(low, high, tuple(tried))
