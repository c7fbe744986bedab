"""A liveness policy as configuration for real stacks, with what each cannot express and what it will really do.

From a `LivenessPolicy` and a target's name to text. The four Python targets are whole programs that can be
started as they are; nginx and sysctl are fragments. Runs nothing; the tests run every program against a
silenced client.
"""

from __future__ import annotations

from collections.abc import Callable

from harness.policy.emit import stacks
from harness.policy.emit.emitted import CannotEmit, Emitted
from reference_server.liveness.heartbeat_policy import LivenessPolicy

__all__ = ["TARGETS", "CannotEmit", "Emitted", "emit"]

TARGETS: dict[str, Callable[[LivenessPolicy], Emitted]] = {
    "websockets": stacks.websockets_server,
    "uvicorn": stacks.uvicorn_server,
    "python-socketio": stacks.socketio_server,
    "aiohttp": stacks.aiohttp_server,
    "nginx": stacks.nginx_proxy,
    "sysctl": stacks.linux_sysctl,
}
"""What a policy can be written for, by name."""


def emit(policy: LivenessPolicy, target: str) -> Emitted:
    """Write a policy as a target's configuration.

    Raises:
        CannotEmit: no such target, or a policy without a heartbeat.
    """
    if target not in TARGETS:
        raise CannotEmit(f"no target {target!r}; allowed: {', '.join(TARGETS)}")
    if policy.heartbeat_interval is None:
        raise CannotEmit("this policy has no heartbeat: heartbeat_interval is null")
    return TARGETS[target](policy)
