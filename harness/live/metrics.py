"""A run's live numbers for Prometheus, read when it is asked for and at no other time.

From the counts of a `LiveRun` to the text format. Names begin with `flatline_run_`; those of the gateway, which has
a page of its own, with `flatline_`. Seconds of detections are scenario time, all others real.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from harness.live.counts import BUCKETS_S
from harness.live.run import LiveRun
from reference_server.api.exposition import scraped

__all__ = ["LiveMetrics"]


class LiveMetrics(Collector):
    """The metrics of one run.

    Args:
        run: whose they are.
    """

    def __init__(self, run: LiveRun) -> None:
        self._run = run
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def scrape(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics and their media type, in the format that an ``Accept`` header prefers."""
        return scraped(self._registry, accept)

    def collect(self) -> Iterator[Metric]:
        """Return every metric as it is now."""
        with self._run.held() as counts:
            now = self._run.numbers()
            histograms = counts.histograms()
            ghosts, injected = dict(counts.ghosts_of), dict(counts.injected)
            detected = {fault: counts.detected[fault] for fault in injected}
            losses = {cause: n for cause, n in counts.losses_by.items() if n}
        yield _gauge("info", "The run that goes on.", ("scenario",), {(now["scenario"],): 1})
        yield _gauge(
            "phase_done", "How much of its phase is done.", ("phase",), {(now["phase"],): now["done"]}
        )
        if now["left_s"] is not None:
            yield _gauge(
                "left_seconds", "Until the phase is over, as far as can be told.", (), {(): now["left_s"]}
            )
        yield _gauge("clients", "Clients of the plan.", (), {(): now["clients"]})
        yield _gauge("live_clients", "Clients connected, no fault in effect.", (), {(): now["live"]})
        yield _by_fault("faults_injected", "Faults that took effect.", injected)
        yield _by_fault("faults_detected", "Of them: suspected, or the socket closed.", detected)
        # A gauge: a loss may turn out to have been a fault's, whose line was read later.
        by_cause = {(cause,): n for cause, n in losses.items()}
        yield _gauge("losses", "Connections that healthy clients lost.", ("cause",), by_cause)
        if now["in_store"] is not None:
            by_fault = {(fault,): n for fault, n in ghosts.items()}
            yield _gauge("ghosts", "Dead clients whose session the store holds.", ("fault",), by_fault)
            yield _gauge("store_sessions", "Sessions in the store.", (), {(): now["in_store"]})
        lag = {(role,): lag_s for role, lag_s in now["lag_s"].items()}
        yield _gauge("loop_lag_seconds", "Largest lag of a role's event loops just now.", ("role",), lag)
        family = HistogramMetricFamily(
            "flatline_run_detection_seconds",
            "From a fault to a milestone, scenario seconds.",
            labels=("fault", "milestone"),
        )
        bounds = [*map("{:g}".format, BUCKETS_S), "+Inf"]
        for labels, (counts_upto, sum_s) in sorted(histograms.items()):
            family.add_metric(labels, list(zip(bounds, counts_upto, strict=True)), sum_s)
        yield family


def _gauge(name: str, about: str, labels: Iterable[str], values: Mapping[Any, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"flatline_run_{name}", about, labels=tuple(labels))
    for names, value in values.items():
        family.add_metric(names, value)
    return family


def _by_fault(name: str, about: str, values: Mapping[str, float]) -> CounterMetricFamily:
    family = CounterMetricFamily(f"flatline_run_{name}", about, labels=("fault",))
    for fault, value in values.items():
        family.add_metric((fault,), value)
    return family
