"""aiohttp: one number, `heartbeat`; the pong's deadline is half of it."""

from __future__ import annotations

from harness.emit.emitted import Emitted, Wanted, protocol_ping_note, render, shared_notes
from reference_server.liveness import LivenessPolicy

__all__ = ["emit"]


def emit(policy: LivenessPolicy) -> Emitted:
    """Write the policy for `aiohttp.web.WebSocketResponse`.

    A ping h after the last inbound frame and h/2 for the answer: T_D is U + h/2, in [h/2, 3h/2). h is the
    policy's T, or less where 3h/2 would be later than the policy's own bound: never fewer packets on the way
    and never a later detection than the policy has.
    """
    wanted = Wanted.of(policy)
    heartbeat_s = min(wanted.interval_s, (wanted.interval_s + wanted.patience_s) * 2 / 3)
    range_s = wanted.range_s(heartbeat_s, heartbeat_s / 2)
    notes = [
        f"heartbeat is the only number: a ping {heartbeat_s:g} s after the last frame of the client, and the "
        f"deadline is half of that, {heartbeat_s / 2:g} s. The policy waits (k-1)R + tau = "
        f"{wanted.patience_s:g} s"
        + (
            ": here an outage of half a heartbeat already drops a healthy client."
            if wanted.patience_s > heartbeat_s / 2
            else "."
        ),
        "timeout_ceil_threshold is raised: by default aiohttp rounds every timer above 5 s up to a whole "
        "second of the loop's clock, which makes both times up to 1 s longer (heartbeat=30 gives 31 + 16 s).",
        protocol_ping_note(),
        *shared_notes(policy, wanted, range_s),
    ]
    text = render("aiohttp.py.j2", notes, range_s, wanted=wanted, heartbeat_s=heartbeat_s)
    return Emitted("aiohttp", "python", "gateway_aiohttp.py", text, tuple(notes), range_s)
