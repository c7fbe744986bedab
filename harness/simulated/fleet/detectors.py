"""`reference_server.liveness.PingDetector` for many connections at once: the same rules on arrays.

From pings, answers and deadlines to verdicts and to when the detector is due next. Keeps no clock.
"""

from __future__ import annotations

import numpy as np

from harness.simulated.fleet.draws import FloatArray, Index
from harness.simulated.fleet.outages import Flags
from reference_server.liveness.heartbeat_policy import LivenessPolicy

__all__ = ["PingDetectors"]


class PingDetectors:
    """Detectors of n connections. Seconds; each verb is given clients and times, shape (m,)."""

    def __init__(self, policy: LivenessPolicy, clients: int) -> None:
        assert policy.heartbeat_interval is not None
        self._interval_s: float = policy.heartbeat_interval
        self._timeout_s = policy.heartbeat_timeout
        self._retry_s = policy.retry_s
        self._max = policy.max_failures
        self._ping_s = np.full(clients, -np.inf)
        self._failures = np.zeros(clients, dtype=np.int64)
        self.awaiting = np.zeros(clients, dtype=bool)

    def reset(self, who: Index) -> None:
        """New connections."""
        self.awaiting[who] = False
        self._failures[who] = 0

    def trusts(self, who: Index) -> Flags:
        """Which have no answer to wait for and no failure to forgive."""
        return np.asarray(~self.awaiting[who] & (self._failures[who] == 0))

    def on_ping(self, who: Index, now_s: FloatArray) -> FloatArray:
        """Pings are sent now; returns their deadlines."""
        self._ping_s[who] = now_s
        self.awaiting[who] = True
        return now_s + self._timeout_s

    def on_deadline(self, who: Index) -> tuple[Flags, FloatArray]:
        """Answers are overdue; returns which connections are suspected, and when the others' next ping is due."""
        self._failures[who] += 1
        self.awaiting[who] = False
        return self._failures[who] >= self._max, self._ping_s[who] + self._retry_s

    def on_inbound(self, who: Index, now_s: FloatArray) -> tuple[Index, FloatArray]:
        """Frames come in; returns for whom that changes something, and when their next ping is due.

        With R > T that may have been before: then it is due now.
        """
        waited = ~self.trusts(who)
        who, now_s = who[waited], now_s[waited]
        self.reset(who)
        return who, np.maximum(self._ping_s[who] + self._interval_s, now_s)
