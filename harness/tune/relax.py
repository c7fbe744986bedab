"""Wants that no policy keeps: which one to relax, and to what. From a search to the nearest feasible wants."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from harness.tune.search import Search
from harness.tune.wants import Limit, Wants

__all__ = ["NotTunable", "Relaxation", "relaxations"]


class NotTunable(ValueError):
    """No policy of the space is sound on this network, whatever is wanted; the message says why."""


@dataclass(frozen=True, slots=True)
class Relaxation:
    """Wants that can be kept: the limits that moved, each with what it is now.

    ``factor``: the largest move, allowed now over allowed before. ``candidate``: row of the preferred policy.
    """

    moved: tuple[tuple[Limit, float], ...]
    wants: Wants
    factor: float
    candidate: int

    @property
    def sentence(self) -> str:
        """`relax detect-p99 from 60s to 71.4s (1.2 times)`."""
        moves = ", ".join(
            f"{limit.key} from {limit.written(limit.allowed)} to {limit.written(now)}"
            for limit, now in self.moved
        )
        return f"relax {moves} ({self.factor:.3g} times{' at most' if len(self.moved) > 1 else ''})"


def relaxations(found: Search) -> tuple[Relaxation, ...]:
    """The ways to feasible wants, the smallest move first.

    Each want on its own, the others kept; where no single one is enough, all of them together by the smallest
    largest factor.

    Raises:
        NotTunable: no policy is sound.
    """
    sound = found.sound
    if not sound.any():
        counts = ", ".join(f"{name} {int(mask.sum())}" for name, mask in found.unsound.items())
        raise NotTunable(
            f"{found.conditions.name}: none of {len(sound)} policies is sound on this network; broken rules: {counts}"
        )
    ways = []
    for i in range(len(found.limits)):
        others = np.all(np.delete(found.ratios, i, axis=1) <= 1, axis=1)
        rows = np.flatnonzero(sound & others)
        if len(rows):
            ways.append(_moved(found, int(rows[np.argmin(found.ratios[rows, i])])))
    if not ways:
        rows = np.flatnonzero(sound)
        ways.append(_moved(found, int(rows[np.argmin(found.ratios[rows].max(axis=1))])))
    return tuple(sorted(ways, key=lambda way: way.factor))


def _moved(found: Search, row: int) -> Relaxation:
    """The wants that just allow one policy, and the preferred policy under them."""
    wants, moved, factor = found.wants, [], 1.0
    allowed = np.ones(len(found.limits))
    for i, limit in enumerate(found.limits):
        if found.ratios[row, i] > 1:
            now = _rounded_up(float(found.candidates[limit.column].iloc[row]) * limit.headroom)
            wants = wants.relaxed(limit, now)
            moved.append((limit, now))
            allowed[i] = now / limit.allowed
            factor = max(factor, allowed[i])
    best = found.best(found.sound & np.all(found.ratios <= allowed, axis=1))
    assert best is not None  # the policy of this row, at least
    return Relaxation(tuple(moved), wants, float(factor), best)


def _rounded_up(value: float) -> float:
    """Three significant digits, never below."""
    step = 10.0 ** (math.floor(math.log10(value)) - 2)
    return math.ceil(value / step * (1 - 1e-12)) * step
