"""The tables that measuring makes: their columns, in order, with their types. See ARCHITECTURE.md for what they hold.

From rows to a DataFrame; computes nothing. A table without rows still has its columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import pandas as pd

__all__ = ["MILESTONES", "SCHEMAS", "frame"]

MILESTONES: Final = ("suspected", "socket_closed", "store_cleared", "peers_notified", "locked_out")

_PERCENTILES = {
    f"{name}{bound}_s": "float64" for name in ("p50", "p95", "p99") for bound in ("", "_lo", "_hi")
}
_FIGURES = {
    "n": "int64", "detected": "int64", "censored": "int64", "recovered": "int64", "not_applicable": "int64",
    "mean_s": "float64", **_PERCENTILES, "max_s": "float64",
}  # fmt: skip

SCHEMAS: Final[Mapping[str, Mapping[str, str]]] = {
    "detections": {
        "engine": "str", "fault_id": "str", "fault": "str", "session_id": "str", "node": "str",
        "milestone": "str", "cause": "str", "outcome": "str", "injected_at_s": "float64",
        "duration_s": "float64", "speedup": "float64",
    },
    "not_applicable": {
        "engine": "str", "fault": "str", "milestone": "str", "reason": "str", "count": "int64",
    },
    "injections": {
        "engine": "str", "fault_id": "str", "fault": "str", "scheduled_s": "float64",
        "injected_at_s": "float64", "late_s": "float64",
    },
    "false_suspicions": {
        "engine": "str", "healthy_clients": "int64", "client_days": "float64", "count": "int64",
        "rate_per_client_day": "float64", "rate_lo": "float64", "rate_hi": "float64",
    },
    "mistakes": {
        "engine": "str", "session_id": "str", "client": "str", "node": "str", "cause": "str",
        "time_s": "float64", "in_outage": "bool", "ended": "bool", "duration_s": "float64",
        "incident": "str",
    },
    "ghosts": {
        "engine": "str", "fault_id": "str", "fault": "str", "outcome": "str", "ghost_s": "float64",
    },
    "live": {
        "engine": "str", "time_s": "float64", "live_clients": "int64", "store_sessions": "float64",
        "ghosts": "int64",
    },
    "timelines": {
        "engine": "str", "fault": "str", "fault_id": "str", "time_s": "float64", "lane": "str",
        "kind": "str", "cause": "str", "note": "str",
    },
    "tcp_info": {
        "engine": "str", "fault": "str", "n": "int64", "unacked_share": "float64",
        "retransmitted_share": "float64",
    },
    "lag": {
        "role": "str", "pid": "int64", "time_s": "float64", "max_lag_s": "float64", "node": "str",
    },
    "lateness": {
        "node": "str", "time_s": "float64", "n": "int64", "p50_s": "float64", "p99_s": "float64",
        "max_s": "float64",
    },
    "handshakes": {"engine": "str", "time_s": "float64", "took_s": "float64"},
    "resources": {
        "role": "str", "pid": "int64", "time_s": "float64", "cpu_percent": "float64",
        "rss_bytes": "int64", "descriptors": "int64", "node": "str",
    },
    "qos": {"engine": "str", "fault": "str", "milestone": "str", **_FIGURES},
    "breakdown": {
        "engine": "str", "fault": "str", "milestone": "str", "by": "str", "part": "str", **_FIGURES,
    },
    "survival": {
        "engine": "str", "fault": "str", "milestone": "str", "duration_s": "float64",
        "survival": "float64", "lo": "float64", "hi": "float64", "at_risk": "int64",
    },
    "causes": {
        "engine": "str", "fault": "str", "cause": "str", "count": "int64", "median_s": "float64",
    },
    "accuracy": {
        "engine": "str", "count": "int64", "t_mr_s": "float64", "t_m_s": "float64", "p_a": "float64",
    },
    "incidence": {
        "engine": "str", "fault": "str", "cause": "str", "duration_s": "float64",
        "incidence": "float64", "lo": "float64", "hi": "float64",
    },
    "omission": {
        "engine": "str", "fault": "str", "planned": "int64", "injected": "int64",
        "late_p50_s": "float64", "late_max_s": "float64", "p50_s": "float64",
        "p50_longest_s": "float64", "p99_s": "float64", "p99_longest_s": "float64",
    },
    "session_quality": {
        "engine": "str", "fault": "str", "figure": "str", "count": "int64", "of": "int64",
        "share": "float64", "lo": "float64", "hi": "float64", "note": "str",
    },
    "flicker": {
        "engine": "str", "session_id": "str", "user_id": "str", "watcher": "str",
        "offline_s": "float64", "gap_s": "float64",
    },
    "cost": {
        "engine": "str", "clients": "float64", "heartbeats_per_s": "float64",
        "frames_per_s": "float64", "bytes_per_s": "float64", "redis_operations_per_s": "float64",
        "gateway_cpu_percent": "float64", "gateway_rss_bytes": "float64", "basis": "str",
    },
    "storm": {
        "engine": "str", "time_s": "float64", "width_s": "float64", "disconnected": "int64",
        "connected": "int64", "resumed": "int64", "session_unknown": "int64", "logged_in": "int64",
        "login_refused": "int64",
    },
    "incidents": {
        "engine": "str", "incident_id": "str", "kind": "str", "node": "str", "at_s": "float64",
        "lasts_s": "float64", "watched_s": "float64", "clients_hit": "int64", "clients_lost": "int64",
        "clients_back": "int64", "clients_away": "int64", "back_p50_s": "float64",
        "back_p99_s": "float64", "back_max_s": "float64", "detected_s": "float64",
        "ghosts_gone_s": "float64", "store_agrees_s": "float64", "grain_s": "float64",
        "false_suspicions": "int64",
        "bound_s": "float64",
    },
    "thresholds": {"expression": "str", "value": "float64", "verdict": "str", "reason": "str"},
}  # fmt: skip


def frame(name: str, rows: Iterable[Sequence[Any]]) -> pd.DataFrame:
    """Make the table `name` of rows that have its columns in order.

    Raises:
        KeyError: no such table.
        ValueError: a row has other columns.
    """
    schema = SCHEMAS[name]
    return pd.DataFrame(list(rows), columns=list(schema)).astype(dict(schema))
