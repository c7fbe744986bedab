"""What a policy costs: frames, bytes, Redis operations, radio wake-ups. Rates for a fleet; no measuring.

Sources: TCP/IPv4 headers with timestamps (RFC 9293, RFC 7323: 20 + 32 bytes), WebSocket framing (RFC 6455
section 5.2: 2 bytes out, 6 bytes in with the mask), TLS 1.3 records (RFC 8446: 22 bytes with the tag and
inner type); radio tails: Balasubramanian et al., "Energy consumption in mobile phones", IMC 2009.
"""

from __future__ import annotations

from dataclasses import dataclass

from reference_server.liveness import LivenessPolicy

__all__ = ["Cost", "bytes_per_beat", "cost"]

_TCP_IP = 52
_FRAME_OUT, _FRAME_IN = 2, 6
_TLS_RECORD = 22
_LTE_TAIL_S = 10.0


@dataclass(frozen=True, slots=True)
class Cost:
    """Rates of the whole fleet, a second; the radio's are of one client."""

    frames_per_s: float
    bytes_per_s: float
    redis_operations_per_s: float
    radio_wakeups_per_hour: float
    radio_on_share: float


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
    return (2 + pure_acks) * _TCP_IP + frames + (2 * _TLS_RECORD if tls else 0)


def cost(
    policy: LivenessPolicy,
    clients: int,
    *,
    beat_bytes: int | None = None,
    refresh_every_beat: bool = False,
    radio_tail_s: float = _LTE_TAIL_S,
) -> Cost:
    """The cost of keeping ``clients`` idle connections under a policy.

    2N/T frames a second. A TTL is refreshed when half of it is gone, at the first beat then (or at every
    beat): the session's and the status record's, one operation each. A beat wakes a sleeping radio, which
    stays on for its tail; beats closer than the tail keep it on for ever.
    """
    t = policy.heartbeat_interval
    if t is None:
        return Cost(0.0, 0.0, 0.0, 0.0, 0.0)
    refreshes = 0.0
    for ttl_s in (policy.session_ttl, policy.status_ttl):
        beats = 1 if refresh_every_beat else max(1, -(-ttl_s / 2 // t))
        refreshes += 1 / (beats * t)
    beat = bytes_per_beat() if beat_bytes is None else beat_bytes
    sleeps = t > radio_tail_s
    return Cost(
        frames_per_s=2 * clients / t,
        bytes_per_s=clients * beat / t,
        redis_operations_per_s=clients * refreshes,
        radio_wakeups_per_hour=3600 / t if sleeps else 0.0,
        radio_on_share=min(1.0, radio_tail_s / t),
    )
