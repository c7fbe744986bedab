"""The audit at the end of a real run: do memory, Redis and the ledger agree once the clients have gone?

From the run's nodes to one event in the harness's log. Nodes that were killed for good are not asked: what they
have left behind is for the others to clear, and a difference while it is there.
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

from harness.real.processes.gateways import Nodes
from harness.real.processes.redis import RedisServer
from harness.user_sessions.audit import AuditTarget, CannotAudit, audit
from reference_server.event_log import EventWriter
from reference_server.events import Event, EventKind, Source

__all__ = ["log_audit"]

_SPARE_S = 1.0
_MOST_S = 5.0


def log_audit(
    nodes: Nodes, redis: RedisServer, ledger_url: str, resume_window_s: float, log: Path, origin_s: float
) -> None:
    """Audit and log what was found, or why nothing could be.

    What differs has to do so for a resume window and a second, five seconds at most; without a difference it is
    over at once.

    Args:
        nodes: the run's.
        redis: their store.
        ledger_url: their ledger.
        resume_window_s: real seconds.
        log: to append to.
        origin_s: CLOCK_MONOTONIC at the run's origin.
    """
    urls = nodes.http_urls.split(",")
    running = tuple(url for url, node in zip(urls, nodes, strict=True) if node.runs)
    target = AuditTarget(running, redis.url, redis.key_prefix, ledger_url)
    try:
        found = audit(target, min(resume_window_s + _SPARE_S, _MOST_S))
    except CannotAudit as error:
        detail: dict[str, object] = {"error": str(error)}
    else:
        kinds = Counter(one.kind for one in found.differences)
        detail = {"sessions": found.sessions, "differences": dict(kinds), "took_s": found.took_s}
    with EventWriter(log) as out:
        now_s = time.monotonic() - origin_s
        out.write(Event(now_s, Source.HARNESS, EventKind.AUDITED, detail=detail))
