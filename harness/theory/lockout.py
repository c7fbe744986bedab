"""How long a dead client's user is locked out: retries of a login against the moment the store clears.

From the law of the clean-up to the law of `locked_out`, both in seconds from the fault.
"""

from __future__ import annotations

import math

import numpy as np

from harness.theory.law import Law, mixture
from scenarios.distributions import Distribution

__all__ = ["coincides", "locked_out"]

_TOO_CLOSE = 0.05  # of the wait between two tries
_NODES = 32  # of a random first try


def locked_out(cleared: Law, first_try: Distribution, retry_s: float) -> Law:
    """The first try at or after the clean-up ends it; the user who is let in at the first try was never locked out.

    Tries come at A, A + r, A + 2r, …: the time is A + r·ceil((C − A)/r) for C > A, else 0. A random A is
    taken at the midpoints of 32 equally likely intervals. A try takes no time here; a real one takes a round
    trip or two, so its grid slips by that much a refusal.
    """
    if not cleared.mass:
        return Law.never()
    if first_try.constant is not None:
        return _on_grid(cleared, first_try.constant, retry_s)
    nodes = first_try.quantile((np.arange(_NODES) + 0.5) / _NODES)
    return mixture((1 / _NODES, _on_grid(cleared, float(a), retry_s)) for a in nodes)


def coincides(cleared: Law, first_try: Distribution, retry_s: float) -> bool:
    """Whether a clean-up at a certain moment meets a try: within 5 % of the wait between two tries, either way.

    Then the time jumps by a whole wait for a millisecond of lag, and no exact law holds.
    """
    if first_try.constant is None:
        return False
    jumps = cleared.times_s[1:][np.diff(cleared.times_s) == 0]
    tries = (jumps - first_try.constant) / retry_s
    near = np.abs(tries - np.maximum(np.round(tries), 0.0))
    return bool(np.any(near <= _TOO_CLOSE))


def _on_grid(cleared: Law, first_s: float, retry_s: float) -> Law:
    tries = max(0, math.ceil((cleared.hi_s - first_s) / retry_s))
    times = first_s + retry_s * np.arange(1, tries + 1)
    at = np.concatenate(([float(cleared.cdf(first_s))], cleared.cdf(times)))
    return Law.sides(np.concatenate(([0.0], times)), np.concatenate(([0.0], at[:-1])), at)
