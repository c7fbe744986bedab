"""What the nodes and the clients of one simulation share. State only: `engine.py` builds it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from harness.simulated.clock import Clock
from harness.simulated.connection import Connection
from harness.simulated.event_writer import EventLog, StoreWatch
from harness.simulated.middle import Middle
from harness.simulated.network import Network, RoundTrips
from harness.simulated.presence import Presence
from harness.simulated.store import Store
from scenarios.schema import Scenario

__all__ = ["Model"]


@dataclass(frozen=True, slots=True)
class Model:
    """The scenario, the parts around nodes and clients, and one random generator for each kind of draw."""

    scenario: Scenario
    clock: Clock
    log: EventLog
    network: Network
    store: Store
    store_watch: StoreWatch
    middle: Middle
    presence: Presence
    busy: bool  # whether the plan stalls an event loop, or traffic keeps it busy
    phases: np.random.Generator  # of heartbeats and sweeps
    services: np.random.Generator  # loop time of heartbeats and handshakes
    back_offs: np.random.Generator
    client_beats: np.random.Generator  # when a client that beats by itself begins
    to_gateway: RoundTrips  # times between bursts of a client
    to_client: RoundTrips
    frame_service: RoundTrips  # loop time of a client's frame of data
    connections: dict[str, Connection] = field(default_factory=dict)
    """Which connection holds, or held last, each session that may still be resumed. For all nodes."""
