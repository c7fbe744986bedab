"""Networks that a run makes: silence of one socket, namespaces, a real NAT. Needs root."""

from __future__ import annotations

from typing import Literal

__all__ = ["NetworkKind"]

NetworkKind = Literal["loopback", "netns-nat", "nginx", "haproxy"]
