"""The books of a fleet run: verdicts, exposure and counts while it goes, a `FleetResult` at the end."""

from __future__ import annotations

import math

import numpy as np

from harness.simulated.fleet.draws import FloatArray, Index
from harness.simulated.fleet.result import CAUSES, FleetResult, Outcome
from reference_server.events import Cause
from reference_server.liveness.heartbeat_policy import LivenessPolicy

__all__ = ["Record"]

# TCP/IPv4 headers with timestamps, then the WebSocket frame: 2 bytes out, 6 with the mask of a client
# (RFC 9293, RFC 7323, RFC 6455 section 5.2).
_PING_BYTES = 52 + 2 + len('{"type":"heartbeat"}')
_ANSWER_BYTES = 52 + 6 + len('{"type":"pong"}')


class Record:
    """Books of n clients; ``beats``, ``answers`` and ``clean_ups`` are counted by who makes them."""

    def __init__(self, clients: int, policy: LivenessPolicy, *, faults: bool) -> None:
        n = clients if faults else 0
        self._clients = clients
        self._duration_s = np.full(n, np.nan)
        self._outcome = np.full(n, Outcome.NOT_APPLICABLE, dtype=np.int8)
        self._cause = np.full(n, -1, dtype=np.int8)
        self._false_s: list[FloatArray] = []
        self._false_client: list[Index] = []
        self._false_cause: list[np.ndarray[tuple[int], np.dtype[np.int8]]] = []
        self._connected_s = np.zeros(clients)
        self._healthy_s = np.zeros(clients)
        self._refreshes = 0
        self._resets = 0
        beats = math.ceil(min(policy.session_ttl, policy.status_ttl) / 2 / policy.interval_s)
        self._refresh_every_s = max(1, beats) * policy.interval_s
        self.beats = 0
        self.answers = 0
        self.clean_ups = 0

    def fast_beats(self, count: FloatArray) -> None:
        """Whole quiet runs of pings, each with its answer."""
        beats = int(count.sum())
        self.beats += beats
        self.answers += beats

    def start_exposure(self, who: Index, at_s: FloatArray) -> None:
        """Clients are connected."""
        self._connected_s[who] = at_s

    def stop_exposure(self, who: Index, at_s: FloatArray) -> None:
        """Clients are connected, or healthy, no more."""
        lengths_s = np.maximum(0.0, at_s - self._connected_s[who])
        self._healthy_s[who] += lengths_s
        self._refreshes += int(np.floor(lengths_s / self._refresh_every_s).sum())

    def gave_up_healthy(self, who: Index, at_s: FloatArray, cause: Cause) -> None:
        """Connections of healthy clients that the gateway ended. A middlebox's RST is no suspicion."""
        self.stop_exposure(who, at_s)
        if cause is Cause.TCP_RESET:
            self._resets += len(who)
            return
        self._false_s.append(at_s)
        self._false_client.append(who)
        self._false_cause.append(np.full(len(at_s), CAUSES.index(cause), dtype=np.int8))

    def detected(self, who: Index, struck_s: FloatArray, at_s: FloatArray, cause: Cause) -> None:
        """Faults seen; each such client is cleaned up once."""
        self._settle(who, at_s - struck_s, Outcome.DETECTED)
        self._cause[who] = CAUSES.index(cause)
        self.clean_ups += len(who)

    def recovered(self, who: Index, struck_s: FloatArray, at_s: FloatArray) -> None:
        """Clients back before they were missed."""
        self.stop_exposure(who, struck_s)
        self._settle(who, at_s - struck_s, Outcome.RECOVERED)

    def censored(self, who: Index, struck_s: FloatArray, horizon_s: float) -> None:
        """The run is over; what has not struck by now is not applicable."""
        struck = struck_s < horizon_s
        self._settle(who[struck], horizon_s - struck_s[struck], Outcome.CENSORED)

    def result(self) -> FleetResult:
        """Close the books."""
        false_s = np.concatenate([np.empty(0), *self._false_s])
        return FleetResult(
            clients=self._clients,
            duration_s=self._duration_s,
            outcome=self._outcome,
            cause=self._cause,
            false_suspicion_s=false_s,
            false_client=np.concatenate([np.empty(0, dtype=np.intp), *self._false_client]),
            false_cause=np.concatenate([np.empty(0, dtype=np.int8), *self._false_cause]),
            healthy_s=self._healthy_s,
            healthy_resets=self._resets,
            beats=self.beats,
            frames=self.beats + self.answers,
            wire_bytes=self.beats * _PING_BYTES + self.answers * _ANSWER_BYTES,
            redis_operations=2 * self._refreshes + self.clean_ups,
        )

    def _settle(self, who: Index, duration_s: FloatArray, outcome: Outcome) -> None:
        self._duration_s[who] = duration_s
        self._outcome[who] = outcome
