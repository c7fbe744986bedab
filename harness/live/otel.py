"""A run's live numbers for OpenTelemetry, by the meter `flatline` of whatever provider the process has set up.

From the counts of a `LiveRun` to instruments; Locust's `--otel` sets up the exporters, from the environment's `OTEL_*`.
Seconds of detections are scenario time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter

from harness.live.counts import BUCKETS_S
from harness.live.run import LiveRun

__all__ = ["observed_run"]


def observed_run(provider: MeterProvider | None = None) -> LiveRun:
    """Return a run whose detections are recorded as they are counted, and whose totals are read at each export.

    Args:
        provider: of the meter; None: the process's.
    """
    meter = get_meter("flatline", meter_provider=provider)
    detections = meter.create_histogram(
        "flatline.detection.duration",
        unit="s",
        description="From a fault to a milestone, scenario seconds",
        explicit_bucket_boundaries_advisory=BUCKETS_S,
    )

    def detected(fault: str, milestone: str, latency_s: float) -> None:
        detections.record(latency_s, {"fault": fault, "milestone": milestone})

    run = LiveRun(on_detection=detected)

    def live(_: CallbackOptions) -> Iterable[Observation]:
        with run.held() as counts:
            return [Observation(counts.live)]

    def ghosts(_: CallbackOptions) -> Iterable[Observation]:
        with run.held() as counts:
            return [] if counts.in_store is None else [*_by("fault", counts.ghosts_of)]

    def losses(_: CallbackOptions) -> Iterable[Observation]:
        with run.held() as counts:
            return [*_by("cause", counts.losses_by)] or [Observation(0)]

    def injected(_: CallbackOptions) -> Iterable[Observation]:
        with run.held() as counts:
            return [*_by("fault", counts.injected)]

    meter.create_observable_gauge(
        "flatline.clients.live", [live], "{client}", "Clients connected, no fault in effect"
    )
    meter.create_observable_gauge(
        "flatline.ghosts", [ghosts], "{session}", "Dead clients whose session the store holds"
    )
    # Up and down: a loss may turn out to have been a fault's, whose line was read later.
    meter.create_observable_up_down_counter(
        "flatline.losses", [losses], "{connection}", "Connections that healthy clients lost"
    )
    meter.create_observable_counter(
        "flatline.faults.injected", [injected], "{fault}", "Faults that took effect"
    )
    return run


def _by(label: str, values: Mapping[str, int]) -> Iterator[Observation]:
    for name, value in values.items():
        yield Observation(value, {label: name})
