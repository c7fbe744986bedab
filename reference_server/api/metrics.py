"""What a gateway shows to Prometheus, read when it is asked for and at no other time.

From the gateway's counters and states to the text format. A scrape costs about a millisecond; a heartbeat pays
nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import Gauge, Info, ProcessCollector
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from reference_server.gateway import Gateway

__all__ = ["Metrics"]


class Metrics:
    """The metrics of one gateway; one object for each."""

    def __init__(self, gateway: Gateway) -> None:
        self.registry = registry = gateway.counters.registry
        Info("flatline_node", "This process.", registry=registry).info({"node": gateway.config.node})
        limiter, store, cluster = gateway.limiter, gateway.store, gateway.cluster
        gauges = {
            "sockets": ("Open sockets of clients, authenticated or not.", lambda: len(limiter.sockets)),
            "handshakes": ("Sockets whose handshake is not over.", lambda: len(limiter.opening)),
            "connections": ("Connections that have a session.", lambda: len(gateway.live)),
            "resume_windows": (
                "Sessions without a connection that may still resume.",
                lambda: len(gateway.windows),
            ),
            "loop_lag_seconds": (
                "Largest lag of the event loop in the last second.",
                gateway.telemetry.recent_lag_s,
            ),
            "store_up": ("1 while Redis answers.", lambda: store.available),
            "store_waiting": ("Calls to Redis that wait.", lambda: store.waiting),
            "node_held": ("1 while the node has its lease.", cluster.settled.is_set),
            "draining": ("1 while the gateway shuts down.", lambda: gateway.draining),
        }
        if (ledger := gateway.ledger) is not None:
            gauges |= {
                "ledger_up": ("1 while the durable ledger can be written.", lambda: ledger.available),
                "ledger_waiting": ("Rows that wait to be written.", lambda: ledger.pending),
            }
        for name, (about, value) in gauges.items():
            Gauge(f"flatline_{name}", about, registry=registry).set_function(value)
        registry.register(_Totals(gateway))
        ProcessCollector(registry=registry)  # CPU, memory, descriptors; Linux only


class _Totals(Collector):
    """What is counted elsewhere, by those who do it a thousand times a second."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def collect(self) -> Iterator[Metric]:
        gateway = self._gateway
        if (heartbeats := gateway.detection.heartbeats) is not None:
            lateness = heartbeats.lateness
            yield _counter("heartbeats_sent", "Heartbeats sent.", heartbeats.sent)
            yield HistogramMetricFamily(
                "flatline_heartbeat_lateness_seconds",
                "How late heartbeats were sent; fed once a second.",
                buckets=[(_bound(bound), n) for bound, n in lateness.counts.items()],
                sum_value=lateness.sum_s,
            )
        if gateway.ledger is not None:
            yield _counter("ledger_dropped", "Rows that the ledger never took.", gateway.ledger.dropped)
        yield _counter(
            "presence_undelivered", "Announcements dropped at a full buffer.", gateway.presence.undelivered
        )
        yield _counter(
            "messages_undelivered",
            "Messages of users dropped: gone, or a full buffer.",
            gateway.router.undelivered,
        )


def _counter(name: str, about: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(f"flatline_{name}", about, value=value)


def _bound(seconds: float) -> str:
    return "+Inf" if seconds == float("inf") else f"{seconds:g}"
