"""Who was alive and not shown online, from an indexed history to presence_gaps.csv.

The store watch says when it saw the status record of a connected client's session gone, and when it saw it again. What
of that lies within the life of a healthy connection is a gap. It is never longer than the truth: it begins with the
first look that found nothing and ends with the first that found the record again.
"""

from __future__ import annotations

from collections import defaultdict

import pandas as pd

from harness.events.history import History
from reference_server.events import EventKind
from reports.run_tables import frame

__all__ = ["presence_gaps"]


def presence_gaps(history: History, connections: pd.DataFrame) -> pd.DataFrame:
    """One row a gap, the first ones first.

    Args:
        history: of one engine.
        connections: of its healthy clients, as `healthy_connections` finds them.
    """
    seen = [*history.of(EventKind.STATUS_GONE), *history.of(EventKind.STATUS_SHOWN)]
    absent: dict[str, list[tuple[float, float]]] = defaultdict(list)
    since_s: dict[str, float] = {}
    for event in sorted(seen, key=lambda e: (e.time_s, e.kind)):
        if event.kind is EventKind.STATUS_GONE:
            since_s.setdefault(event.session_id, history.time_s(event))
        elif event.session_id in since_s:
            absent[event.session_id].append((since_s.pop(event.session_id), history.time_s(event)))
    for session_id, begun_s in since_s.items():
        absent[session_id].append((begun_s, float("inf")))
    rows = []
    watched = connections[connections["session_id"].isin(absent)] if absent else connections.iloc[:0]
    columns = ("session_id", "client", "connected_s", "until_s", "hampered_by")
    for session_id, client, connected_s, until_s, hampered_by in watched[list(columns)].to_numpy().tolist():
        for begin_s, stop_s in absent[session_id]:
            from_s, to_s = max(begin_s, connected_s), min(stop_s, until_s)
            # The watch notes it anew for each connection, but not for a connection's later part.
            if from_s < to_s and (begin_s >= connected_s or hampered_by):
                length_s, since_connect_s, shown_again = (
                    to_s - from_s,
                    from_s - connected_s,
                    stop_s <= until_s,
                )
                rows.append(
                    (history.engine, session_id, client, from_s, since_connect_s, length_s, shown_again)
                )
    return frame("presence_gaps", sorted(rows, key=lambda row: (row[3], row)))
