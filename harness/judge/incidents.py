"""Does the store show nothing of an incident any more by when it must? Fills in two columns of incidents.csv.

From what was measured and the scenario to a bound and a verdict a row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from scenarios.faults import incident_of
from scenarios.schema import Scenario

__all__ = ["judge_incidents"]

LONGEST_RETRY_S = 1.0  # real seconds: reference_server/sessions/redis_writer.py
RECORD_WRITE_S = 0.0005  # real seconds; measured: 0.1 to 0.33 ms a record, on two busy cores


def judge_incidents(table: pd.DataFrame, scenario: Scenario, epsilon_s: float) -> pd.DataFrame:
    """Return incidents.csv with ``bound_s`` and ``in_time``.

    ================ ===================================== ================================================
    settled by       bound                                 source
    ================ ===================================== ================================================
    lease            ttl + check                           reference_server/cluster/lease.py
    resume_window    resume window + check                 reference_server/cluster/lease.py
    renewal          renew + writes                        reference_server/cluster/lease.py
    renewal_after_it its end + renew + writes              reference_server/cluster/lease.py
    … of a store     its end + max(renew, retry) + writes  reference_server/sessions/redis_writer.py
    ================ ===================================== ================================================

    Writes: a real gateway writes its records one by one; it shares its cores with Redis. Neither that nor the
    retry (`LONGEST_RETRY_S`) is shorter in a faster run.

    In time is who is not later than the bound by more than ε (real engine) and the width of the store watch's
    look. Unknown: no bound, or the run ended before it.

    Args:
        table: incidents.csv as measured.
        scenario: that ran.
        epsilon_s: of the real run, scenario seconds; 0 where there was none.
    """
    lease, window_s = scenario.gateway.lease, scenario.liveness.resume_window
    kinds = [incident_of(kind) for kind in table["kind"]]
    settled_by = np.array([kind.settled_by for kind in kinds], dtype=str)
    real, lasts_s = (table["engine"] == "real").to_numpy(), table["lasts_s"].to_numpy()
    of_store = np.array([kind.side == "store" for kind in kinds], dtype=bool)
    retry_s = np.where(real & of_store, scenario.clock.scenario_s(LONGEST_RETRY_S), 0.0)
    writes_s = np.where(real, scenario.clock.scenario_s(scenario.clients * RECORD_WRITE_S), 0.0)
    bounds: dict[str, Any] = {
        "lease": lease.ttl + lease.check,
        "resume_window": window_s + lease.check,
        "renewal": lease.renew + writes_s,
        "renewal_after_it": lasts_s + np.maximum(lease.renew, retry_s) + writes_s,
    }
    bound_s = np.select([settled_by == by for by in bounds], list(bounds.values()), np.nan)
    agrees_s, allowed_s = table["store_agrees_s"], np.where(real, epsilon_s, 0.0)
    known = ~np.isnan(bound_s)
    watched = table["watched_s"] > bound_s + epsilon_s
    held = agrees_s <= bound_s + allowed_s + table["grain_s"]
    verdict = np.select([known & held, known & (agrees_s.notna() | watched)], ["pass", "fail"], "unknown")
    return table.assign(bound_s=bound_s, in_time=verdict).astype({"in_time": "str"})
