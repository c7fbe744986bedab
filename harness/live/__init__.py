"""What a run shows while it goes on: one count of its events, for terminal, web page, Prometheus and OpenTelemetry."""
