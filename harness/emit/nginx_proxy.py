"""nginx in front of the gateway: its timers kept out of the heartbeat's way."""

from __future__ import annotations

import math

from harness.emit.emitted import Emitted, Wanted, render
from harness.emit.linux_sysctl import give_up_range_s
from harness.theory.tcp import LINUX_RETRIES2
from reference_server.liveness import LivenessPolicy

__all__ = ["emit"]

_LEAST_S = 60  # nginx's default: no reason to go below it


def emit(policy: LivenessPolicy) -> Emitted:
    """Write the timers of an nginx `location` for a gateway with this policy.

    proxy_read_timeout runs from one frame of the gateway to the next. A gateway that waits for one pong sends
    nothing for (k−1)R + τ, so the timer is above T + (k−1)R + τ, and T more.
    Source: nginx documentation, ngx_http_proxy_module.
    """
    wanted = Wanted.of(policy)
    timeout_s = max(_LEAST_S, math.ceil(2 * wanted.interval_s + wanted.patience_s))
    range_s = give_up_range_s(wanted.interval_s, LINUX_RETRIES2)
    notes = [
        "nginx passes heartbeats on and has none of its own: the range above is its kernel's patience with a "
        "silent client. What detects is the gateway behind it, by its policy: "
        f"{wanted.patience_s:g} to {wanted.interval_s + wanted.patience_s:g} s.",
        "proxy_read_timeout is renewed by every frame of the gateway, not by frames of the client: heartbeats "
        "that only the client sends do not keep it open unless the gateway answers them.",
        "Behind nginx the gateway's TCP peer is nginx: TCP_USER_TIMEOUT and TCP keepalive of the gateway no "
        "longer see the client, only heartbeats that the client answers do.",
        "A load balancer in front of nginx has a timer of its own; keep the heartbeat interval below half of it.",
    ]
    text = render("nginx.conf.j2", notes, range_s, wanted=wanted, timeout_s=timeout_s)
    return Emitted("nginx", "nginx", "flatline-liveness.conf", text, tuple(notes), range_s)
