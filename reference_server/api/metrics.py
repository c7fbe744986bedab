"""What a gateway shows to Prometheus, read when it is asked for and at no other time.

From the gateway's counters and states to the text format. The registry is the gateway's own, so that two
gateways in one process do not meet in it. A scrape costs about a millisecond; a heartbeat pays nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from reference_server.gateway import Gateway

__all__ = ["Metrics"]


class Metrics:
    """The metrics of one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_GatewayCollector(gateway))
        ProcessCollector(registry=self._registry)  # CPU, memory, descriptors; Linux only

    def scrape(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics and their media type, in the format that an ``Accept`` header prefers."""
        encoder, content_type = choose_encoder(accept)
        return encoder(self._registry), content_type


class _GatewayCollector(Collector):
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def collect(self) -> Iterator[Metric]:
        gateway, counters = self._gateway, self._gateway.counters
        yield InfoMetricFamily(
            "flatline_node", "This process.", value={"node": gateway.config.node}
        )
        yield _gauge(
            "sockets",
            "Open sockets of clients, authenticated or not.",
            len(gateway.limiter.sockets),
        )
        yield _gauge(
            "handshakes", "Sockets whose handshake is not over.", len(gateway.limiter.opening)
        )
        yield _gauge("connections", "Connections that have a session.", len(gateway.live))
        yield _gauge(
            "resume_windows", "Sessions without a connection that may still resume.",
            len(gateway.windows),
        )  # fmt: skip
        yield _counter("connects", "Connections that got a session.", counters.connects)
        yield _counter("resumes", "Connects of a session that had one before.", counters.resumes)
        yield _by("suspicions", "cause", "Decisions that a connection is over.", counters.decided)
        yield _by("ends", "cause", "Sockets of sessions gone.", counters.closed)
        yield _by("refusals", "code", "Handshakes and connects refused.", counters.refused)
        yield _by("logins", "outcome", "Logins, by outcome.", counters.logins)
        yield _counter("heartbeats_missed", "Heartbeats without an answer.", counters.missed)
        if gateway.heartbeats is not None:
            lateness = gateway.heartbeats.lateness
            yield _counter("heartbeats_sent", "Heartbeats sent.", gateway.heartbeats.sent)
            yield HistogramMetricFamily(
                "flatline_heartbeat_lateness_seconds",
                "How late heartbeats were sent; fed once a second.",
                buckets=[(_bound(bound), n) for bound, n in lateness.cumulative()],
                sum_value=lateness.sum_s,
            )
        yield _gauge(
            "loop_lag_seconds", "Largest lag of the event loop in the last second.",
            gateway.telemetry.recent_lag_s(),
        )  # fmt: skip
        yield _gauge("store_up", "1 while Redis answers.", float(gateway.store.available))
        yield _gauge("store_waiting", "Calls to Redis that wait.", gateway.store.waiting)
        if gateway.ledger is not None:
            ledger = gateway.ledger
            up = float(ledger.available)
            yield _gauge("ledger_up", "1 while the durable ledger can be written.", up)
            yield _gauge("ledger_waiting", "Rows that wait to be written.", ledger.pending)
            yield _counter("ledger_dropped", "Rows that the ledger never took.", ledger.dropped)
        yield _counter(
            "presence_undelivered", "Announcements dropped at a full buffer.",
            gateway.presence.undelivered,
        )  # fmt: skip
        yield _counter(
            "messages_undelivered", "Messages of users dropped: gone, or a full buffer.",
            gateway.router.undelivered,
        )  # fmt: skip
        yield _gauge(
            "node_held", "1 while the node has its lease.", gateway.cluster.settled.is_set()
        )
        yield _gauge("draining", "1 while the gateway shuts down.", float(gateway.draining))


def _gauge(name: str, about: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"flatline_{name}", about, value=value)


def _counter(name: str, about: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(f"flatline_{name}", about, value=value)


def _by(name: str, label: str, about: str, values: Mapping[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(f"flatline_{name}", about, labels=[label])
    for key, value in values.items():
        family.add_metric([str(key)], value)
    return family


def _bound(seconds: float) -> str:
    return "+Inf" if seconds == float("inf") else f"{seconds:g}"
