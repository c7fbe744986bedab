"""The meter `flatline`: a real exporter sends real bytes to a receiver of ours."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

from harness.live.otel import observed_run
from reference_server.events import encode
from tests.harness.live.test_page import LOGS, PLAN, SCENARIO


def test_what_is_counted_is_exported(tmp_path: Path) -> None:
    came: list[bytes] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            came.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    exporter = OTLPMetricExporter(f"http://127.0.0.1:{server.server_port}/v1/metrics")
    provider = MeterProvider([PeriodicExportingMetricReader(exporter, 3_600_000)])
    try:
        run = observed_run(provider)
        for name, events in LOGS.items():
            (tmp_path / name).write_bytes(b"".join(map(encode, events)))
        run.follow(SCENARIO.name, PLAN, tmp_path, SCENARIO.clock)
        run.look()
        assert provider.force_flush()
    finally:
        provider.shutdown()
        server.shutdown()
        server.server_close()
    (resource,) = ExportMetricsServiceRequest.FromString(came[0]).resource_metrics
    (scope,) = resource.scope_metrics
    assert scope.scope.name == "flatline"
    metrics = {metric.name: metric for metric in scope.metrics}
    (took,) = metrics["flatline.detection.duration"].histogram.data_points
    labels = {one.key: one.value.string_value for one in took.attributes}
    assert labels == {"fault": "host_crash", "milestone": "suspected"}
    assert (took.count, took.sum) == (1, 70.0)  # scenario seconds
    assert metrics["flatline.detection.duration"].unit == "s"
    assert [point.as_int for point in metrics["flatline.clients.live"].gauge.data_points] == [1]
    assert [point.as_int for point in metrics["flatline.ghosts"].gauge.data_points] == [1]
    assert [point.as_int for point in metrics["flatline.losses"].sum.data_points] == [0]
    assert [point.as_int for point in metrics["flatline.faults.injected"].sum.data_points] == [1]
