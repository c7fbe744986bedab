"""A page of Prometheus: a registry's metrics as text, in the format that the one who asks prefers."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

__all__ = ["scraped"]


def scraped(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """Return the metrics and their media type; ``accept``: the request's header."""
    try:
        encoder, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # the library cannot bear a version that is no number
        encoder, content_type = choose_encoder("")
    return encoder(registry), content_type
