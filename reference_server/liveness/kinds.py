"""Which detectors there are, and the one that a connection gets.

From a policy and a kind, as configuration or scenario name it, to one `Detector` a connection.

    kind            who sends              what counts
    ping            the gateway            a missing answer; with a timeout above the interval several are awaited
    phi_akka        the gateway            a silence that is improbable after those learnt: normal law
    phi_cassandra   the gateway            the same, exponential law
    probing         the gateway            a missing answer, at an interval that grows while the NAT allows it
    send_errors     the gateway            a write that fails; the answer is not looked at
    state_check     the gateway, unasked   whether the socket still looks open when the next one is due
    client_beats    the client             no inbound frame for `session_timeout`: the sweep's, not a detector's
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from reference_server.liveness.adaptive_interval import ProbedInterval, Probing, ProbingDetector
from reference_server.liveness.detector import Detector, DetectorSettings
from reference_server.liveness.heartbeat_policy import (
    LivenessPolicy,
    OverlappingPingDetector,
    Ping,
    PingDetector,
)
from reference_server.liveness.phi_accrual import PhiAkka, PhiCassandra, PhiDetector
from reference_server.liveness.socket_checks import (
    SendErrorDetector,
    SendErrors,
    StateCheck,
    StateCheckDetector,
)

__all__ = [
    "ClientBeats",
    "DetectorKind",
    "Detectors",
    "PhiAkka",
    "PhiCassandra",
    "Ping",
    "Probing",
    "SendErrors",
    "StateCheck",
]

_MOST_REMEMBERED = 100_000


class ClientBeats(DetectorSettings):
    """The client beats every `heartbeat_interval`; the idle limit finds the one that is silent."""

    kind: Literal["client_beats"] = "client_beats"


DetectorKind = Annotated[
    Ping | SendErrors | ClientBeats | StateCheck | PhiAkka | PhiCassandra | Probing,
    Field(discriminator="kind"),
]
"""The kinds that gateway and model have."""


class Detectors:
    """Makes the detectors of one gateway's connections.

    What a probing heartbeat learnt of a client's network is kept from one connection to the next, for the 100,000
    clients that connected last; it is lost with the process.

    Args:
        kind: which detector.
        policy: its heartbeat. Seconds of the clock that will drive the detectors.
        rng: draws the phase of each connection's first ping.
    """

    def __init__(self, kind: DetectorKind, policy: LivenessPolicy, rng: np.random.Generator) -> None:
        self._kind = kind
        self._policy = policy
        self._rng = rng
        self._learnt: OrderedDict[Hashable, ProbedInterval] = OrderedDict()

    def new(self, client: Hashable, now_s: float) -> Detector | None:
        """Return the detector of a connection that begins now; None: the gateway sends no heartbeat.

        Args:
            client: names the client, the same on each of its connections.
            now_s: the time.
        """
        kind, policy, interval_s = self._kind, self._policy, self._policy.heartbeat_interval
        if interval_s is None or isinstance(kind, ClientBeats):
            return None
        if isinstance(kind, Probing):
            return ProbingDetector(policy, self._learnt_of(client, kind), now_s)
        # A random phase is in (0, T]: a burst of new connections must not become a burst of pings.
        phase = 0.0 if policy.first_ping == "interval" else float(self._rng.random())
        first_s = now_s + interval_s * (1 - phase)
        match kind:
            case Ping() if policy.heartbeat_timeout > interval_s:
                return OverlappingPingDetector(policy, first_s)
            case Ping():
                return PingDetector(policy, first_s)
            case SendErrors():
                return SendErrorDetector(policy, first_s)
            case StateCheck():
                return StateCheckDetector(policy, first_s, cleans_up=kind.cleans_up)
            case PhiAkka() | PhiCassandra():
                return PhiDetector(policy, kind.arrivals(interval_s), now_s, first_s)

    def _learnt_of(self, client: Hashable, kind: Probing) -> ProbedInterval:
        learnt = self._learnt.pop(client, None) or ProbedInterval(kind)
        self._learnt[client] = learnt
        if len(self._learnt) > _MOST_REMEMBERED:
            self._learnt.popitem(last=False)
        return learnt
