"""How clients connect, and come back after a connection ended: back-off, handshake, login without a session.

From the moment a client wants a connection to the one it gets; the steps and their order are those of
`harness/simulated/clients.py`, for many clients at once.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from harness.simulated.fleet.draws import FloatArray, Index, RoundTrips
from harness.simulated.fleet.outages import OutageProcess
from scenarios.client_rules import Reconnect

__all__ = ["connect"]

# A SYN into a cut is sent again after 1, 3 and 7 s; the client gives up after 10 s.
_SYN_WAITS_S = (1.0, 2.0, 4.0, 3.0)
_HANDSHAKES = 2.0  # round trips before the first message: TCP, WebSocket upgrade


def connect(
    who: Index,
    from_s: FloatArray,
    resumable_until_s: FloatArray | None,
    *,
    reconnect: Reconnect,
    way: OutageProcess,
    round_trips: RoundTrips,
    horizon_s: float,
    rng: np.random.Generator,
) -> tuple[FloatArray, FloatArray]:
    """When the gateway accepts each client's next connection, and when the client knows.

    Args:
        who: clients, shape (m,).
        from_s: when each begins, or learns that its connection is over; inf: never. Shape (m,).
        resumable_until_s: until when its session record is there, shape (m,). None: they log in for the first
            time, and without a back-off.
        reconnect: its patience.
        way: each client's way, asked whether a SYN passes.
        round_trips: draws for handshakes and logins.
        horizon_s: who is not back by then is not back.
        rng: back-offs.

    Returns:
        Two arrays of shape (m,), seconds; inf: not before the horizon.
    """
    now_s = from_s.copy()
    has_session = np.full(len(who), resumable_until_s is not None)
    record_until_s = now_s.copy() if resumable_until_s is None else resumable_until_s.copy()
    accepted_s, connected_s = np.full(len(who), np.inf), np.full(len(who), np.inf)
    failures = 0 if resumable_until_s is None else 1
    trying = np.flatnonzero(now_s < horizon_s)
    while trying.size:
        if failures:
            ceiling_s = reconnect.back_off_ceiling_s(failures)
            now_s[trying] += rng.uniform(0.0, ceiling_s, len(trying))
        failures += 1
        outside = trying[~has_session[trying]]
        refused = outside[~_reach(who, outside, now_s, way)]
        entering = np.setdiff1d(outside, refused)
        now_s[entering] += round_trips.take(len(entering))
        has_session[entering] = True
        record_until_s[entering] = np.inf

        ready = trying[has_session[trying]]
        ready = ready[_reach(who, ready, now_s, way)]
        trip_s = round_trips.take(len(ready))
        now_s[ready] += (_HANDSHAKES + 0.5) * trip_s
        known = now_s[ready] <= record_until_s[ready]
        accepted_s[ready[known]] = now_s[ready[known]]
        now_s[ready] += trip_s / 2
        connected_s[ready[known]] = now_s[ready[known]]
        has_session[ready[~known]] = False
        trying = trying[np.isinf(accepted_s[trying]) & (now_s[trying] < horizon_s)]
    return accepted_s, connected_s


def _reach(who: Index, some: Index, now_s: FloatArray, way: OutageProcess) -> npt.NDArray[np.bool_]:
    """Let some of them try to get through; moves their time on; False: no SYN passed, shape of ``some``."""
    through = np.zeros(len(some), dtype=bool)
    for wait_s in _SYN_WAITS_S:
        waiting = np.flatnonzero(~through)
        if not waiting.size:
            break
        through[waiting] = way.lets_in(who[some[waiting]], now_s[some[waiting]])
        now_s[some[~through]] += wait_s
    return through
