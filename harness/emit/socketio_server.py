"""python-socketio on uvicorn: ping_interval and ping_timeout of Engine.IO, uvicorn's own pings switched off."""

from __future__ import annotations

from harness.emit.emitted import Emitted, Wanted, one_deadline_note, render, shared_notes
from reference_server.liveness import LivenessPolicy

__all__ = ["emit"]


def emit(policy: LivenessPolicy) -> Emitted:
    """Write the policy for `socketio.AsyncServer`.

    On a WebSocket Engine.IO waits ping_interval + ping_timeout for the next packet of a client, so T_D is
    U + (k−1)R + τ where the last packet was a pong. Its sweep, once a ping_timeout, only matters for
    long-polling, which is not offered here.
    """
    wanted = Wanted.of(policy)
    range_s = wanted.range_s(wanted.interval_s, wanted.patience_s)
    polling_hi_s = wanted.interval_s + 2 * wanted.patience_s
    notes = [
        *one_deadline_note(policy, "ping_timeout", wanted),
        "Only the WebSocket transport is offered. Long-polling clients are found by a sweep once a "
        f"ping_timeout, after {wanted.patience_s:g} to {polling_hi_s:g} s.",
        "uvicorn's own pings are off (ws_ping_interval=None): its 20 s / 20 s would race these.",
        "The pings are application messages that the page's script answers: a frozen tab is noticed.",
        "Clients are told both times in the handshake and use them to notice a dead server.",
        *shared_notes(policy, wanted, range_s),
    ]
    text = render("socketio.py.j2", notes, range_s, wanted=wanted)
    return Emitted("python-socketio", "python", "gateway_socketio.py", text, tuple(notes), range_s)
