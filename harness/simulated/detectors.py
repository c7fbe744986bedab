"""Which detector a connection gets: the scenario's choice, made for one connection of one client.

The detectors themselves are the reference server's. What a probing heartbeat has learnt of a client's network
is kept here from one connection to the next.
"""

from __future__ import annotations

import numpy as np

from reference_server.liveness.adaptive_interval import ProbedInterval, Probing, ProbingDetector
from reference_server.liveness.heartbeat_policy import LivenessPolicy, PingDetector
from reference_server.liveness.phi_accrual import (
    AkkaArrivals,
    CassandraArrivals,
    PhiAkka,
    PhiCassandra,
    PhiDetector,
)
from reference_server.liveness.socket_checks import (
    ClientBeats,
    Ping,
    SendErrors,
    SocketDetector,
    StateCheck,
    socket_detector,
)
from scenarios.schema import Detector

__all__ = ["AnyDetector", "Detectors"]

AnyDetector = PingDetector | PhiDetector | SocketDetector


class Detectors:
    """Makes detectors. For all nodes.

    Args:
        choice: the scenario's `detector`.
        policy: its heartbeat; scenario seconds.
        phases: draws of each first ping's phase.
    """

    def __init__(
        self, choice: Detector, policy: LivenessPolicy, phases: np.random.Generator
    ) -> None:
        self._choice = choice
        self._policy = policy
        self._phases = phases
        self._learnt: dict[int, ProbedInterval] = {}
        # What beats at fixed times is regular enough to foretell exchanges.
        self.foretellable = isinstance(choice, Ping | SendErrors | StateCheck)

    def new(self, client: int, now_s: float) -> AnyDetector | None:
        """The detector of a connection that begins now; None: the gateway sends no heartbeat."""
        interval_s = self._policy.heartbeat_interval
        if interval_s is None or isinstance(self._choice, ClientBeats):
            return None
        if isinstance(self._choice, Probing):
            learnt = self._learnt.setdefault(client, ProbedInterval(self._choice))
            return ProbingDetector(self._policy, learnt, now_s)
        # In (0, T]: a burst of new connections must not become a burst of pings.
        first_ping_s = now_s + interval_s * (1 - float(self._phases.random()))
        match self._choice:
            case SendErrors() | StateCheck():
                return socket_detector(self._choice, self._policy, first_ping_s)
            case PhiAkka():
                akka = AkkaArrivals(self._choice, interval_s)
                return PhiDetector(self._policy, akka, now_s, first_ping_s)
            case PhiCassandra():
                cassandra = CassandraArrivals(self._choice, interval_s)
                return PhiDetector(self._policy, cassandra, now_s, first_ping_s)
            case _:
                return PingDetector(self._policy, first_ping_s)
