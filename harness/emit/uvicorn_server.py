"""uvicorn, for every ASGI framework on it: ws_ping_interval and ws_ping_timeout."""

from __future__ import annotations

from harness.emit.emitted import (
    Emitted,
    Wanted,
    one_deadline_note,
    protocol_ping_note,
    render,
    shared_notes,
)
from reference_server.liveness import LivenessPolicy

__all__ = ["emit"]


def emit(policy: LivenessPolicy) -> Emitted:
    """Write the policy for `uvicorn.Config`.

    Its websockets-sansio protocol closes the transport at the pong's deadline without waiting for a closing
    handshake: T_D is U + (k−1)R + τ.
    """
    wanted = Wanted.of(policy)
    range_s = wanted.range_s(wanted.interval_s, wanted.patience_s)
    notes = [
        *one_deadline_note(policy, "ws_ping_timeout", wanted),
        "ws is websockets-sansio, whose keepalive closes at the deadline; uvicorn before April 2026 ignored "
        "both settings there, so the program asks first. ws=websockets, the older implementation, waits for "
        "a closing handshake on top.",
        "Only the pong counts as a sign of life, other frames do not.",
        protocol_ping_note(),
        *shared_notes(policy, wanted, range_s),
    ]
    text = render("uvicorn.py.j2", notes, range_s, wanted=wanted)
    return Emitted("uvicorn", "python", "gateway_uvicorn.py", text, tuple(notes), range_s)
