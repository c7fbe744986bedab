"""Python `websockets`: ping_interval, ping_timeout, and close_timeout, which it waits for a silent peer too."""

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

_CLOSE_TIMEOUT_S = (
    2.0  # a closing handshake takes one round trip; the library's 10 s are for nobody
)


def emit(policy: LivenessPolicy) -> Emitted:
    """Write the policy for `websockets.asyncio.server.serve`.

    The handler of a silent client ends close_timeout after the pong's deadline: the library sends a close
    frame and waits for the answer. So T_D is U + (k−1)R + τ + close_timeout.
    """
    wanted = Wanted.of(policy)
    close_timeout_s = min(_CLOSE_TIMEOUT_S, policy.heartbeat_timeout / 5)
    range_s = wanted.range_s(wanted.interval_s, wanted.patience_s, close_timeout_s)
    notes = [
        *one_deadline_note(policy, "ping_timeout", wanted),
        f"After the deadline the library sends a close frame and waits close_timeout = {close_timeout_s:g} s "
        "for the silent client before the handler ends (10 s by default). That is in the range above.",
        "Only the pong counts as a sign of life, other frames do not.",
        protocol_ping_note(),
        *shared_notes(policy, wanted, range_s),
    ]
    text = render(
        "websockets.py.j2", notes, range_s, wanted=wanted, close_timeout_s=close_timeout_s
    )
    return Emitted("websockets", "python", "gateway_websockets.py", text, tuple(notes), range_s)
