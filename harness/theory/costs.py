"""What a policy costs (frames, bytes, store operations, radio wake-ups), and how long its records live.

From intervals and patiences to rates, TTLs and timers; arrays or numbers in, the same out. Seconds. Measures nothing.

The TTLs and timers beside the heartbeat do not detect a silent client: they are back-stops (idle limit, TTLs) and
comfort (resume window) that must not get in the heartbeat's way.

Sources: TCP/IPv4 headers with timestamps (RFC 9293, RFC 7323: 20 + 32 bytes), WebSocket framing (RFC 6455
section 5.2: 2 bytes out, 6 bytes in with the mask), TLS 1.3 records (RFC 8446: 22 bytes with the tag and
inner type); radio tails: Balasubramanian et al., "Energy consumption in mobile phones", IMC 2009.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from harness.theory.law import FloatArray
from reference_server.liveness.heartbeat_policy import LivenessPolicy
from scenarios.distributions import Distribution

__all__ = [
    "PER_CLIENTS",
    "TLS_BEAT_CPU_S",
    "TLS_CONNECTION_BYTES",
    "Cost",
    "bytes_per_beat",
    "bytes_per_frame",
    "cost",
    "costs",
    "idle_limit_s",
    "resume_window_s",
    "session_ttl_s",
    "status_ttl_s",
    "sweep_s",
    "tls_bytes_per_beat",
    "tls_handshakes",
]

PER_CLIENTS = 1000
"""Budgets are of this many clients."""

_TCP_IP = 52
_FRAME_OUT, _FRAME_IN = 2, 6
_TLS_RECORD = 22
_LTE_TAIL_S = 10.0
# Of a TLS 1.3 handshake, beyond TCP's and WebSocket's, measured by bench/tls.py: payload both ways with one P-256
# certificate and two tickets, and the gateway's CPU on a core of that machine (docs/tls.md says which).
_FULL_BYTES, _RESUMED_BYTES = 2078, 1158
_FULL_CPU_S, _RESUMED_CPU_S = 1.0e-3, 0.8e-3
TLS_BEAT_CPU_S = 32e-6
"""CPU of the gateway that TLS adds to a heartbeat and its answer, measured likewise."""
TLS_CONNECTION_BYTES = 18 * 1024
"""Memory of the gateway's process that TLS adds to a connection, measured likewise."""


class TlsHandshakes(NamedTuple):
    """What TLS's handshakes cost the gateway, TCP's and WebSocket's left out."""

    bytes: float
    cpu_s: float  # of one core


@dataclass(frozen=True, slots=True)
class Cost:
    """Rates of all clients, a second; the radio's are of one client. Numbers, or arrays with one entry a policy."""

    frames_per_s: Any
    bytes_per_s: Any
    store_operations_per_s: Any
    radio_wakeups_per_hour: Any  # beats closer than the radio's tail keep it awake: then none
    radio_on_share: Any


def bytes_per_beat(
    payload_out: int = 4, payload_in: int = 4, *, pure_acks: int = 0, tls: bool = False
) -> int:
    """Bytes of one ping and its answer from the IP header up: 120 with 4-byte payloads, 172 with one pure ACK.

    Payloads up to 125 bytes. TLS adds 22 to each of the two records.

    Raises:
        ValueError: a payload that needs a longer frame header.
    """
    if not (0 <= payload_out <= 125 and 0 <= payload_in <= 125):
        raise ValueError(f"payloads {payload_out}, {payload_in}; allowed: 0 to 125 bytes")
    frames = _FRAME_OUT + payload_out + _FRAME_IN + payload_in
    return (2 + pure_acks) * _TCP_IP + frames + (tls_bytes_per_beat() if tls else 0)


def bytes_per_frame(payload: int, *, masked: bool, tls: bool = False) -> int:
    """Bytes of one application frame from the IP header up, with the pure ACK that answers it.

    ``masked``: a client's. A frame that fills several packets has one header here.
    """
    header = 2 if payload <= 125 else 4 if payload < 2**16 else 10
    return 2 * _TCP_IP + header + (4 if masked else 0) + payload + (_TLS_RECORD if tls else 0)


def tls_bytes_per_beat() -> int:
    """Bytes that TLS adds to a ping and its answer: a record each way."""
    return 2 * _TLS_RECORD


def tls_handshakes(full: float, resumed: float) -> TlsHandshakes:
    """The cost of so many full handshakes and resumptions.

    A resumption spares the certificate and its signature, not the key exchange.
    """
    return TlsHandshakes(
        full * _FULL_BYTES + resumed * _RESUMED_BYTES, full * _FULL_CPU_S + resumed * _RESUMED_CPU_S
    )


def cost(
    policy: LivenessPolicy,
    clients: int,
    *,
    beat_bytes: int | None = None,
    refresh_every_beat: bool = False,
    radio_tail_s: float = _LTE_TAIL_S,
) -> Cost:
    """The cost of keeping ``clients`` idle connections under a policy: `costs` of one policy, in numbers."""
    if policy.heartbeat_interval is None:
        return Cost(0.0, 0.0, 0.0, 0.0, 0.0)
    found = costs(
        policy.heartbeat_interval,
        (policy.session_ttl, policy.status_ttl),
        clients,
        beat_bytes=beat_bytes,
        refresh_every_beat=refresh_every_beat,
        radio_tail_s=radio_tail_s,
    )
    return Cost(**{name: float(getattr(found, name)) for name in Cost.__slots__})


def costs(
    interval_s: npt.ArrayLike,
    ttls_s: Sequence[npt.ArrayLike],
    clients: int,
    *,
    beat_bytes: int | None = None,
    refresh_every_beat: bool = False,
    radio_tail_s: float = _LTE_TAIL_S,
) -> Cost:
    """The costs of policies with a heartbeat, for ``clients`` idle connections.

    2N/T frames a second. A TTL is refreshed when half of it is gone, at the first beat then (or at every beat): one
    operation for each record. A beat wakes a sleeping radio, which stays on for its tail; beats closer than the tail
    keep it on for ever.

    Args:
        interval_s: T, shape (n,) or a number.
        ttls_s: of each record that is refreshed, as ``interval_s``.
        clients: N.
        beat_bytes: of a ping and its answer on the wire; None: `bytes_per_beat`.
        refresh_every_beat: records are refreshed at every beat.
        radio_tail_s: how long a radio stays on after a packet.
    """
    t = np.asarray(interval_s, dtype=float)
    # One refresh writes all records, when half of the shortest life is gone.
    shortest_s = np.minimum.reduce([np.asarray(ttl, dtype=float) for ttl in ttls_s])
    beats = np.ones_like(t) if refresh_every_beat else np.maximum(1, np.ceil(shortest_s / 2 / t))
    beat = bytes_per_beat() if beat_bytes is None else beat_bytes
    return Cost(
        frames_per_s=2 * clients / t,
        bytes_per_s=clients * beat / t,
        store_operations_per_s=len(ttls_s) * clients / (beats * t),
        radio_wakeups_per_hour=np.where(t > radio_tail_s, 3600 / t, 0.0),
        radio_on_share=np.minimum(1.0, radio_tail_s / t),
    )


_TIDY_S = np.array(
    [
        *(0.2, 0.5, 1, 2, 3, 5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300, 600, 900, 1200, 1800),
        *(3600, 7200, 14400, 28800, 43200, 86400.0),
    ]
)
_MIN_STATUS_TTL_S, _MIN_SESSION_TTL_S = 300.0, 3600.0
_BOUNDS = 4  # detection bounds that a status record outlives


def idle_limit_s(interval_s: npt.ArrayLike, patience_s: npt.ArrayLike) -> FloatArray:
    """Idle limit: twice the latest detection, rounded up. Above T + (k−1)R + τ it never beats the heartbeat."""
    return _up(2 * _latest_s(interval_s, patience_s))


def sweep_s(interval_s: npt.ArrayLike, patience_s: npt.ArrayLike) -> FloatArray:
    """How often the idle limit is looked at: half of the latest detection, rounded down."""
    return _down(_latest_s(interval_s, patience_s) / 2)


def status_ttl_s(
    interval_s: npt.ArrayLike, patience_s: npt.ArrayLike, operations_per_s: float | None = None
) -> FloatArray:
    """TTL of the status record: 5 minutes or more, at least four times the latest detection, rounded up.

    A record is refreshed at the first beat after half its TTL is gone, and an outage may delay that beat by
    the whole patience: a living client's record survives for TTL > 2(T + patience). A dead node's records are
    gone after a TTL. ``operations_per_s`` (of 1000 clients) lengthens it, to a day at most.
    """
    wanted = np.maximum(_MIN_STATUS_TTL_S, _BOUNDS * _latest_s(interval_s, patience_s))
    if operations_per_s is not None:
        # Two records each time that half of the TTL is gone.
        wanted = np.maximum(wanted, 4 * PER_CLIENTS / operations_per_s)
    return _up(wanted)


def session_ttl_s(status_ttl: npt.ArrayLike) -> FloatArray:
    """TTL of the session record: an hour or more, at least twice the status record's, rounded up."""
    return _up(np.maximum(_MIN_SESSION_TTL_S, 2 * np.asarray(status_ttl, dtype=float)))


def resume_window_s(
    interval_s: npt.ArrayLike, patience_s: npt.ArrayLike, page_load: Distribution
) -> FloatArray:
    """Resume window: three times the slowest page in a thousand and at least 10 s, but within the detection.

    It counts from the last sign of life, which is T + (k−1)R + τ old at a suspicion (less a round trip): a
    window up to that never delays the clean-up of a dead client.
    """
    wanted_s = max(10.0, 3 * float(page_load.quantile(0.999)))
    return _down(np.minimum(wanted_s, _latest_s(interval_s, patience_s)))


def _latest_s(interval_s: npt.ArrayLike, patience_s: npt.ArrayLike) -> FloatArray:
    latest = np.asarray(interval_s, dtype=float) + np.asarray(patience_s, dtype=float)
    return np.asarray(latest, dtype=float)


def _up(seconds: Any) -> FloatArray:
    """The next larger tidy time, at most a day."""
    i = np.searchsorted(_TIDY_S, np.asarray(seconds) * (1 - 1e-12), side="left")
    return np.asarray(_TIDY_S[np.minimum(i, len(_TIDY_S) - 1)], dtype=float)


def _down(seconds: Any) -> FloatArray:
    """The next smaller tidy time; what is below all of them stays."""
    s = np.asarray(seconds, dtype=float)
    i = np.searchsorted(_TIDY_S, s * (1 + 1e-12), side="right") - 1
    return np.asarray(np.where(i < 0, s, _TIDY_S[np.maximum(i, 0)]), dtype=float)
