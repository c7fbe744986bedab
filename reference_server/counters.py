"""What one gateway process counts while it works, as counters of `prometheus_client`.

From the gateway's callbacks to totals since the process began, in a registry that is the gateway's own, so that two
gateways in one process do not meet in it. Nothing here is touched at a heartbeat: heartbeats are counted from the list
of how late they were, when somebody asks (`api/metrics.py`, which adds what the gateway's state says).
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, disable_created_metrics

__all__ = ["Counters"]

# Its lines would say for every counter when the process began. The library has left it without a signature.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Counters:
    """Totals since the process began."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry(auto_describe=False)

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(f"flatline_{name}", about, labels, registry=registry)

        self.connects = counter("connects", "Connections that got a session.")
        self.resumes = counter("resumes", "Connects of a session that had one before.")
        self.suspicions = counter("suspicions", "Decisions that a connection is over.", "cause")
        self.ends = counter("ends", "Sockets of sessions gone.", "cause")
        self.refusals = counter("refusals", "Handshakes and connects refused.", "code")
        self.logins = counter("logins", "Logins, by outcome.", "outcome")
        self.missed = counter("heartbeats_missed", "Heartbeats without an answer.")

    def value(self, name: str, **labels: str) -> float:
        """Return a total by the name that Prometheus sees, as ``refusals_total``; 0 before the first."""
        return self.registry.get_sample_value(f"flatline_{name}", labels) or 0.0
