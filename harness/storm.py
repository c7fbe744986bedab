"""Who came and went when: the counts that a reconnect storm is drawn from.

From an indexed history to storm.csv; judges nothing. The clients say it, except for what the gateway refused:
that too is what a client was told.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.frames import frame
from harness.history import History
from reference_server.events import EventKind, Source

__all__ = ["storm"]

_BINS = 240  # as many as a slide's width can show
_KINDS = (
    EventKind.DISCONNECTED, EventKind.CONNECTED, EventKind.SESSION_UNKNOWN, EventKind.LOGGED_IN,
    EventKind.LOGIN_REFUSED,
)  # fmt: skip


def storm(history: History, width_s: float | None = None) -> pd.DataFrame:
    """Count connections, resumptions, errors and logins in spans of equal width from the run's start.

    Args:
        history: of one engine.
        width_s: of a span, scenario seconds; default: one second, or what makes at most 240 spans.

    ``time_s`` is the start of the span. ``resumed`` are those of ``connected`` that came back to a session.
    """
    width_s = width_s or max(1.0, float(np.ceil(history.end_s / _BINS)))
    edges = np.arange(0.0, history.end_s + width_s, width_s)
    if history.end_s <= 0:
        return frame("storm", [])

    def counts(kind: EventKind, resumed: bool = False) -> NDArray[np.int64]:
        times = [
            history.time_s(event)
            for event in history.of(kind, Source.CLIENT)
            if not resumed or event.detail.get("resumed")
        ]
        return np.histogram(times, edges)[0].astype(np.int64)

    gone, back, unknown, accepted, refused = map(counts, _KINDS)
    columns = (gone, back, counts(EventKind.CONNECTED, True), unknown, accepted, refused)
    return frame(
        "storm",
        (
            (history.engine, start, width_s, *numbers)
            for start, *numbers in zip(edges[:-1], *columns, strict=True)
        ),
    )
