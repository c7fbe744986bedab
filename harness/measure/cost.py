"""What keeping watch costs: heartbeats and frames a second, bytes, the gateway's processor and memory.

From an indexed history to cost.csv, and a policy's predicted row beside it. Rates are per *scenario* second:
a run five times as fast sends five times as much in a real one. What no witness counts stays empty. Redis
operations are those that touch records, by its own count (INFO commandstats) without the store watch's.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd

from harness.events.history import History
from harness.theory.costs import bytes_per_beat, cost
from reference_server.events import EventKind, Source
from reference_server.liveness.heartbeat_policy import LivenessPolicy
from reports.run_tables import frame

__all__ = ["expected_cost", "running_cost"]

_PAYLOAD_OUT = len(b'{"type":"heartbeat"}')
_PAYLOAD_IN = len(b'{"type":"pong"}')
_BEAT_BYTES = bytes_per_beat(_PAYLOAD_OUT, _PAYLOAD_IN)


def running_cost(history: History, live: pd.DataFrame) -> pd.DataFrame:
    """One row: what this run's heartbeats cost after the ramp.

    The gateway counts the heartbeats that it sends. A log without its count (a simulation) has them of the
    traced sessions only; their rate is then taken for everyone's, and ``basis`` says so. To each heartbeat
    an answer is reckoned: ``frames_per_s`` is twice the heartbeats, and above the truth by what dead
    clients do not answer. Bytes are those of the frames and their TCP/IPv4 headers (`theory/costs.py`).

    Args:
        history: of one engine.
        population: population.csv of the same engine; ``clients`` is its mean number of connections to live clients
            and ghosts.
    """
    steady = live[live["time_s"] >= history.plan.ramp_s]
    held = float((steady["live_clients"] + steady["ghosts"]).mean()) if len(steady) else np.nan
    rate, basis = _counted(history)
    if np.isnan(rate):
        rate, basis = _traced(history, held)
    samples = [
        event.detail
        for event in history.of(EventKind.RESOURCES)
        if event.detail.get("role") == "gateway" and history.time_s(event) >= history.plan.ramp_s
    ]
    used = pd.DataFrame(samples, columns=["cpu_percent", "rss_bytes"], dtype=float)
    row = (
        history.engine,
        held,
        rate,
        2 * rate,
        _BEAT_BYTES * rate,
        _redis_operations(history),
        used["cpu_percent"].mean(),
        used["rss_bytes"].max(),
        basis,
    )
    return frame("cost", [row])


def expected_cost(policy: LivenessPolicy, clients: float) -> pd.DataFrame:
    """Theory's row for a fleet of so many connections (`theory/costs.py`)."""
    expected = cost(policy, round(clients), beat_bytes=_BEAT_BYTES)
    row = (
        "theory",
        clients,
        expected.frames_per_s / 2,
        expected.frames_per_s,
        expected.bytes_per_s,
        expected.store_operations_per_s,
        np.nan,
        np.nan,
        "2N/T frames a second",
    )
    return frame("cost", [row])


def _redis_operations(history: History) -> float:
    """Operations a scenario second after the ramp; NaN: nobody counted. A Redis that is started again counts anew."""
    samples = [
        (history.time_s(event), sum(event.detail["commands"].values()))
        for event in history.of(EventKind.STORE_SAMPLE)
        if "commands" in event.detail and history.time_s(event) >= history.plan.ramp_s
    ]
    steps = [(b_s - a_s, b - a) for (a_s, a), (b_s, b) in pairwise(sorted(samples)) if b >= a]
    watched_s = sum(length_s for length_s, _ in steps)
    return sum(more for _, more in steps) / watched_s if watched_s > 0 else np.nan


def _counted(history: History) -> tuple[float, str]:
    """Heartbeats a scenario second of all nodes: each count covers the time since that node's count before."""
    per_node: dict[str, list[tuple[float, int]]] = {}
    for event in history.of(EventKind.HEARTBEAT_LATENESS):
        if history.time_s(event) >= history.plan.ramp_s:
            counted = (history.time_s(event), int(event.detail.get("n", 0)))
            per_node.setdefault(event.node, []).append(counted)
    rates = []
    for counts in per_node.values():
        counts.sort()
        span_s = counts[-1][0] - counts[0][0]
        if span_s > 0:
            rates.append(sum(n for _, n in counts[1:]) / span_s)
    return (sum(rates), "counted by the gateway") if rates else (np.nan, "")


def _traced(history: History, held: float) -> tuple[float, str]:
    beats = 0
    watched_s = 0.0
    connected = history.by_session(EventKind.CONNECTED, Source.CLIENT)
    sent = history.by_session(EventKind.HEARTBEAT_SENT)
    for injected in history.injected_faults:
        if injected.planned.traced and injected.injected_s is not None:
            since_s = min(map(history.time_s, connected.get(injected.session_id, [])), default=np.inf)
            if since_s < injected.injected_s:
                watched_s += injected.injected_s - since_s
                beats += sum(
                    since_s <= history.time_s(event) < injected.injected_s
                    for event in sent.get(injected.session_id, [])
                )
    if watched_s <= 0:
        return np.nan, "no heartbeat was logged"
    return (held * beats / watched_s, f"{beats} heartbeats of the traced sessions, taken for everyone's")
