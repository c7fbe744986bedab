"""Figures of many policies on one network: latency, false suspicions, cost. From a table to a wider one.

Closed forms of `harness.theory`, on columns. Detection latency is that of a silent death: U + (k−1)R + τ with
U ~ Uniform(0, T), without the half round trip that a ping in flight may save.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from harness.tune.accuracy import (
    dropped_by_idle_timer,
    false_suspicions_by_outages,
    late_answers,
)
from harness.tune.conditions import Conditions, Rules
from harness.tune.records import session_ttl_s, status_ttl_s, store_operations_per_s
from harness.tune.wants import DETECTION
from harness.tune.written import PER_CLIENTS
from reference_server.liveness import LivenessPolicy

__all__ = ["policy_row", "with_figures"]


def with_figures(
    policies: pd.DataFrame,
    conditions: Conditions,
    rules: Rules,
    operations_per_s: float | None = None,
) -> pd.DataFrame:
    """The policies (columns of `Space.policies`) with their figures.

    Adds detect_p50_s, detect_p95_s, detect_p99_s, detect_max_s; false_per_client_day (outages, slow answers, an
    idle timer that is not above T; every answer `Rules.lag_s` later than its round trip); of 1000 clients
    frames_per_s, bytes_per_s and store_operations_per_s; radio_wakeups_per_hour of one client: beats, as each
    wakes the radio or keeps it awake.
    """
    t = policies["interval_s"].to_numpy(dtype=float)
    patience = policies["patience_s"].to_numpy(dtype=float)
    # Answers come this much later than their round trip: a patience that just fits a retransmission is none.
    waits = np.maximum(patience - rules.lag_s, 0.0)
    network = conditions.network
    status = status_ttl_s(t, patience, operations_per_s)
    return policies.assign(
        **{f"{name}_s": quantile * t + patience for name, quantile in DETECTION.items()},
        false_per_client_day=false_suspicions_by_outages(t, waits, network)
        + late_answers(t, waits, network)
        + dropped_by_idle_timer(t, patience, conditions.nat),
        frames_per_s=2 * PER_CLIENTS / t,
        bytes_per_s=PER_CLIENTS * rules.beat_bytes / t,
        store_operations_per_s=store_operations_per_s(
            t, [status, session_ttl_s(status)], PER_CLIENTS
        ),
        radio_wakeups_per_hour=3600 / t,
    )


def policy_row(policy: LivenessPolicy) -> pd.DataFrame:
    """One policy as a table of one row, with the columns of `Space.policies`.

    Raises:
        ValueError: the policy has no heartbeat.
    """
    if policy.heartbeat_interval is None:
        raise ValueError("this policy has no heartbeat: heartbeat_interval is null")
    patience_s = (policy.max_failures - 1) * policy.retry_s + policy.heartbeat_timeout
    return pd.DataFrame({
        "interval_s": [policy.heartbeat_interval], "max_failures": [policy.max_failures],
        "timeout_s": [policy.heartbeat_timeout], "retry_s": [policy.retry_s],
        "patience_s": [patience_s],
    })  # fmt: skip
