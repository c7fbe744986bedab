"""Clients whose fault healed and who asked whether the server still held them: one bit each, and the law that follows.

From `revived` events to rows of revivals.csv and revival_law.csv. What is seen is that a server has given a client up
and would say so; that is no milestone of the others, and none of theirs stands for it.
"""

from __future__ import annotations

import pandas as pd

from harness.events.history import History
from harness.statistics.current_status import current_status
from reference_server.events import EventKind, Source
from reports.run_tables import frame

__all__ = ["revival_law", "revivals"]

_QUANTILES = {"p10": 0.1, "p50": 0.5, "p90": 0.9}


def revivals(history: History) -> pd.DataFrame:
    """A row for each client that was told something that tells."""
    healed = history.by_fault(EventKind.FAULT_HEALED)
    faults = {one.planned.fault_id: one for one in history.injected_faults}
    rows = []
    for event in history.of(EventKind.REVIVED, Source.CLIENT):
        fault_id, gone = event.detail["fault_id"], event.detail["gone"]
        injected_s = faults[fault_id].injected_s
        if gone is None or injected_s is None or fault_id not in healed:
            continue
        silent_s = history.time_s(healed[fault_id][0]) - injected_s
        rows.append(
            (history.engine, fault_id, faults[fault_id].planned.fault, silent_s, gone, event.detail["how"])
        )
    return frame("revivals", rows)


def revival_law(revived: pd.DataFrame) -> pd.DataFrame:
    """The law of when a server gives a client up, of each fault: from rows of `revivals`."""
    rows = []
    for (engine, fault), group in revived.groupby(["engine", "fault"], sort=False):
        law = current_status(group["silent_s"].to_numpy(), group["gone"].to_numpy())
        found = [law.quantile(q) for q in _QUANTILES.values()]
        numbers = [number for one in found for number in (one.value_s, one.lo_s, one.hi_s)]
        rows.append((engine, fault, law.n, law.ended, law.lo_s, law.hi_s, *numbers))
    return frame("revival_law", rows)
