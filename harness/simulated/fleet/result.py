"""What a fleet run leaves: one row a fault, false suspicions, exposure, costs. Figures of them, no simulation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

import numpy as np
import numpy.typing as npt

from harness.simulated.fleet.draws import FloatArray, Index
from reference_server.durations import DAY_S
from reference_server.events import Cause

__all__ = ["CAUSES", "FleetResult", "Outcome"]

CAUSES = (Cause.HEARTBEAT, Cause.SESSION_TIMEOUT, Cause.TCP_TIMEOUT, Cause.TCP_RESET)
"""What the codes in `FleetResult.cause` and `FleetResult.false_cause` stand for."""


class Outcome(IntEnum):
    """How a fault ended, as in `detections.csv`."""

    DETECTED = 0
    CENSORED = 1  # the run ended first
    RECOVERED = 2  # the client was back first
    NOT_APPLICABLE = 3  # the fault never took effect


@dataclass(frozen=True, slots=True, eq=False)
class FleetResult:
    """Result of a run. All times are scenario seconds.

    One row a faulted client, in the order of the clients (shape (faults,); empty without a fault):
    ``duration_s`` from the fault's effect to the outcome (NaN where not applicable), ``outcome``
    (`Outcome`), ``cause`` (index into `CAUSES`; -1 where not detected).

    One row a false suspicion, in no particular order: ``false_suspicion_s`` (from the run's origin),
    ``false_client``, ``false_cause``.

    ``healthy_s``: connected time without a fault of each client, shape (clients,). ``healthy_resets``:
    connections of healthy clients that a middlebox ended with RST, which is no suspicion. ``beats``: pings sent;
    ``frames``: pings and the answers that came; ``wire_bytes``: of these frames with their headers, without TCP's
    retransmissions; ``redis_operations``: two for each refresh of a session's records, counted as if answers came
    at once, and one for each clean-up.
    """

    clients: int
    duration_s: FloatArray
    outcome: npt.NDArray[np.int8]
    cause: npt.NDArray[np.int8]
    false_suspicion_s: FloatArray
    false_client: Index
    false_cause: npt.NDArray[np.int8]
    healthy_s: FloatArray
    healthy_resets: int
    beats: int
    frames: int
    wire_bytes: int
    redis_operations: int

    @classmethod
    def merged(cls, parts: Sequence[Self]) -> Self:
        """One result of several parts of a fleet.

        Raises:
            ValueError: no parts.
        """
        if not parts:
            raise ValueError("no parts of a fleet to merge; allowed: one or more")
        firsts = np.cumsum([0, *(p.clients for p in parts[:-1])])
        return cls(
            clients=sum(p.clients for p in parts),
            duration_s=np.concatenate([p.duration_s for p in parts]),
            outcome=np.concatenate([p.outcome for p in parts]),
            cause=np.concatenate([p.cause for p in parts]),
            false_suspicion_s=np.concatenate([p.false_suspicion_s for p in parts]),
            false_client=np.concatenate(
                [p.false_client + first for p, first in zip(parts, firsts, strict=True)]
            ),
            false_cause=np.concatenate([p.false_cause for p in parts]),
            healthy_s=np.concatenate([p.healthy_s for p in parts]),
            healthy_resets=sum(p.healthy_resets for p in parts),
            beats=sum(p.beats for p in parts),
            frames=sum(p.frames for p in parts),
            wire_bytes=sum(p.wire_bytes for p in parts),
            redis_operations=sum(p.redis_operations for p in parts),
        )

    @property
    def detection_s(self) -> FloatArray:
        """Detection latencies of what was detected, shape (detected,)."""
        return np.asarray(self.duration_s[self.outcome == Outcome.DETECTED])

    @property
    def healthy_client_s(self) -> float:
        """Connected time without a fault, all clients."""
        return float(self.healthy_s.sum())

    @property
    def false_suspicions(self) -> int:
        """How often a healthy client was taken for dead."""
        return len(self.false_suspicion_s)

    @property
    def false_suspicions_per_client_day(self) -> float:
        """Their rate; NaN where no client was healthy for any time."""
        if self.healthy_client_s <= 0:
            return float("nan")
        return self.false_suspicions / self.healthy_client_s * DAY_S
