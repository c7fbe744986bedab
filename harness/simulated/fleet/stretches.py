"""Stretches of pings that nothing can happen to, given the drawn network: how many to pass over.

Exact, not an approximation: a ping is passed over only where its way is drawn to be open whatever its round trip
below the deadline, and how many come before the next late one is drawn.
"""

from __future__ import annotations

import numpy as np

from harness.simulated.fleet.draws import FloatArray, Index, RoundTrips
from harness.simulated.fleet.ways import Flags, Way

__all__ = ["uneventful_pings"]


def uneventful_pings(
    who: Index, now_s: FloatArray, interval_s: float, horizon_s: float,
    way: Way, round_trips: RoundTrips,
) -> tuple[FloatArray, Flags]:  # fmt: skip
    """Count the pings from ``now_s`` on, one every interval, that are answered in time.

    Passed over are pings that reach the client before its way matters, and outages that begin and end between
    two pings. The count ends at the horizon.

    Args:
        who: clients that await nothing, shape (m,).
        now_s: when the next ping of each is due.
        interval_s: T.
        horizon_s: pings from then on are not counted.
        way: each client's way; outages passed over are advanced.
        round_trips: says how soon the next late answer is.

    Returns:
        Two arrays of shape (m,): how many (whole numbers), and whether the ping after these is known to be late;
        where not, its round trip is still to be drawn.
    """
    until_late = round_trips.pings_until_late(len(who))
    pings = np.zeros(len(who))
    to_end = np.ceil((horizon_s - now_s) / interval_s)
    looking = np.arange(len(who))
    while looking.size:
        some = who[looking]
        closing_s = way.matters_from_s[some] - round_trips.fast_below_s / 2
        ahead = np.ceil((closing_s - now_s[looking]) / interval_s)
        pings[looking] = np.minimum(np.maximum(pings[looking], ahead), to_end[looking])
        if not way.recurs:
            break
        sent_s = now_s[looking] + pings[looking] * interval_s
        harmless = (sent_s >= way.ends_s[some]) & (sent_s < horizon_s)
        harmless &= pings[looking] <= until_late[looking]
        way.advance(some[harmless])
        looking = looking[harmless]
    return np.minimum(pings, until_late), until_late < pings
