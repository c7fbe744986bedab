"""Layers of detection that race: the law of the first verdict, and which layer gives it how often.

From laws to a law; what each layer is, is `detectors.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from harness.theory.law import FloatArray, Law

__all__ = ["Layer", "Stack", "first_of", "first_of_common_phase"]

_CELLS = 256  # of the common phase
_COMMON = 2048  # times at which layers with a common phase are compared


@dataclass(frozen=True, slots=True)
class Stack:
    """The first verdict of several layers. ``wins`` adds up to ``law.mass``; a layer that cannot win has 0."""

    law: Law
    wins: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer whose time is ``sign × U + rest`` with the fault's phase U ~ Uniform(0, T), T in seconds.

    ``sign`` is +1 for what starts with the gateway's next ping, -1 for what counts from the last beat,
    0 for what does not know the phase; ``rest`` is independent of U and of the other layers.
    """

    sign: int
    rest: Law


def first_of(layers: Mapping[str, Law]) -> Stack:
    """The minimum of independent times; of two at the same moment the one named first wins.

    Source: order statistics, P(min > t) = Π P(T_i > t).
    """
    laws = list(layers.values())
    t = _grid(laws)
    if not len(t):
        return Stack(Law.never(), dict.fromkeys(layers, 0.0))
    before = 1 - np.prod([1 - law.before(t) for law in laws], axis=0)
    at = 1 - np.prod([1 - law.cdf(t) for law in laws], axis=0)
    wins = {name: _wins(i, laws, t) for i, name in enumerate(layers)}
    return Stack(Law.sides(t, before, at), wins)


def first_of_common_phase(interval_s: float, layers: Mapping[str, Layer]) -> Stack:
    """The minimum of layers that share the fault's phase; of two at the same moment each wins half.

    Exact where all signs are equal. Else the phase is cut into 256 cells; within one, each layer's time is
    smeared over the cell on its own, which is off by the square of a cell's share.
    """
    signs = {layer.sign for layer in layers.values()}
    if len(signs) == 1:
        stack = first_of({name: layer.rest for name, layer in layers.items()})
        sign = signs.pop()
        phase = Law.uniform(0.0, interval_s).scaled(sign) if sign else Law.constant(0.0)
        return Stack(stack.law.plus(phase), stack.wins)
    cell = Law.uniform(0.0, interval_s / _CELLS)
    smeared = {
        name: layer.rest.plus(cell.scaled(layer.sign)) if layer.sign else layer.rest
        for name, layer in layers.items()
    }
    starts = np.arange(_CELLS)[:, np.newaxis] * interval_s / _CELLS
    t = _common_grid(interval_s, layers)
    reached = np.stack([law.cdf(t - layers[name].sign * starts) for name, law in smeared.items()])
    first = 1 - np.prod(1 - reached, axis=0).mean(axis=0)
    wins = {}
    for i, name in enumerate(layers):
        others = np.prod(np.delete(1 - reached, i, axis=0), axis=0)
        rise = np.diff(reached[i], axis=1)
        wins[name] = float(np.sum(rise * (others[:, 1:] + others[:, :-1]) / 2) / _CELLS)
    law = Law.knots(t, np.concatenate(([0.0], np.maximum.accumulate(first)[1:])))
    return Stack(law, wins)


def _common_grid(interval_s: float, layers: Mapping[str, Layer]) -> FloatArray:
    """Even times over all that can happen, and the layers' own corners, a jump from just before it."""
    ends = [
        layer.rest.times_s + layer.sign * phase_s
        for layer in layers.values()
        for phase_s in (0.0, interval_s)
    ]
    corners = np.unique(np.concatenate(ends))
    even = np.linspace(corners[0], corners[-1], _COMMON)
    return np.unique(np.concatenate((even, corners, np.nextafter(corners, -np.inf))))


def _grid(laws: list[Law]) -> FloatArray:
    happen = [law for law in laws if law.mass > 0]
    if not happen:
        return np.empty(0)
    if all(len(law.times_s) == 2 and law.lo_s == law.hi_s for law in happen):
        return np.unique([law.lo_s for law in happen])
    return np.unique(np.concatenate([law.refined(512) for law in happen]))


def _wins(i: int, laws: list[Law], t: FloatArray) -> float:
    """∫ Π_{j≠i} P(T_j later) dF_i: Simpson's rule between the knots, jumps one by one."""

    def others(before: FloatArray, at: FloatArray, tie: bool) -> FloatArray:
        later = np.ones_like(at)
        for j, law in enumerate(laws):
            if j != i:
                later = later * (1 - (law.before(at) if j > i or not tie else law.cdf(at)))
        return later

    jumps = laws[i].cdf(t) - laws[i].before(t)
    total = float(np.sum(jumps * others(t, t, tie=True)))
    if len(t) > 1:
        rise = laws[i].before(t[1:]) - laws[i].cdf(t[:-1])
        middle = (t[1:] + t[:-1]) / 2
        left = np.prod([1 - law.cdf(t[:-1]) for j, law in enumerate(laws) if j != i], axis=0)
        right = np.prod([1 - law.before(t[1:]) for j, law in enumerate(laws) if j != i], axis=0)
        weight = (left + 4 * others(middle, middle, tie=False) + right) / 6
        total += float(np.sum(rise * weight))
    return total
