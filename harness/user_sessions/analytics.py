"""What the ledger says about its users: how long, how often, from where, and whether they come back.

From the table `user_sessions` to DataFrames. The database counts and adds up; pandas gets one row a session
(device, length) and one row a user and span of days. Days are UTC; the last one may not be over.

* A session's length is from its login to its last sign of life. One that is open is censored: its length is what
  it has been so far, and is counted as such (Kaplan–Meier), not left out.
* A user is active on every day between a session's login and its last sign of life.
* Online time adds up sessions: two devices at once count twice.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import date
from typing import Any, Final

import numpy as np
import pandas as pd
from scipy import stats
from sqlalchemy import Engine, case, desc, func, select

from harness.statistics.incidence import CONFIDENCE, incidence
from reference_server.ledger.table import LedgerTables

__all__ = ["MONTH_DAYS", "Analytics", "analyse", "read_ledger"]

MONTH_DAYS: Final = 30
_MOST_ADDRESSES: Final = 20
_DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class Analytics:
    """What was found; empty tables for an empty ledger.

    Attributes:
        lengths: device (``all`` first), sessions, open, p50_s, p50_lo_s, p50_hi_s, p90_s, p99_s, mean_s (of those
            that have ended).
        daily: day, active (DAU), new, monthly (active in the 30 days up to it), stickiness (active / monthly).
        retention: after_days, users (of cohorts old enough), back, share, lo, hi (exact 95 %): who was active
            again on the so-manieth day after the first.
        addresses: ip_address, sessions, users, open; those with most sessions first.
        online_s_per_user_day: average online time of a user on a day on which the user is active.
        sessions, users: how many.
    """

    lengths: pd.DataFrame
    daily: pd.DataFrame
    retention: pd.DataFrame
    addresses: pd.DataFrame
    online_s_per_user_day: float
    sessions: int
    users: int

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; days as text, what is not known as null."""
        out = {}
        for name, value in asdict(self).items():
            if isinstance(value, pd.DataFrame):
                rows = value.astype(object).where(value.notna(), None).to_dict("records")
                out[name] = [{str(k): _plain(v) for k, v in row.items()} for row in rows]
            else:
                out[name] = _plain(value)
        return out


def _plain(value: Any) -> Any:
    if isinstance(value, pd.Timestamp | date):
        return value.isoformat()[:10]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def read_ledger(engine: Engine) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return what the database has added up.

    Returns:
        lengths: device_type, length_s, is_open; a row a session.
        spans: user_id, first_day, last_day (since 1970), online_s; a row a user and pair of days.
        addresses: ip_address, sessions, users, open.
    """
    c = LedgerTables(engine).sessions.c
    length_s = (c.last_active_time - c.login_time) / 1000.0
    is_open = case((c.logout_time.is_(None), 1), else_=0)
    days = (c.login_time // _DAY_MS).label("first_day"), (c.last_active_time // _DAY_MS).label("last_day")
    lengths = select(c.device_type, length_s.label("length_s"), is_open.label("is_open"))
    spans = select(c.user_id, *days, func.sum(length_s).label("online_s")).group_by(c.user_id, *days)
    sessions, users = func.count().label("sessions"), func.count(c.user_id.distinct()).label("users")
    addresses = (
        select(c.ip_address, sessions, users, func.sum(is_open).label("open"))
        .group_by(c.ip_address)
        .order_by(desc(sessions), c.ip_address)
        .limit(_MOST_ADDRESSES)
    )
    with engine.connect() as connection:
        found = [pd.read_sql_query(query, connection) for query in (lengths, spans, addresses)]
    return found[0], found[1], found[2]


def analyse(lengths: pd.DataFrame, spans: pd.DataFrame, addresses: pd.DataFrame) -> Analytics:
    """Work out everything of what `read_ledger` returns."""
    active = _active_days(spans)
    online_s = float(spans["online_s"].sum()) / len(active) if len(active) else float("nan")
    return Analytics(
        lengths=_lengths(lengths),
        daily=_daily(active),
        retention=_retention(active),
        addresses=addresses,
        online_s_per_user_day=online_s,
        sessions=len(lengths),
        users=int(active["user_id"].nunique()),
    )


def _lengths(lengths: pd.DataFrame) -> pd.DataFrame:
    devices = sorted(lengths["device_type"].unique(), key=str)
    groups = [(device, lengths[lengths["device_type"] == device]) for device in devices]
    rows = []
    for device, mine in [("all", lengths), *groups] if len(lengths) else []:
        is_open = mine["is_open"].astype(bool)
        curve = incidence(mine["length_s"].astype(float), np.where(is_open, "censored", "detected"))
        p50, p90, p99 = (curve.quantile(q) for q in (0.5, 0.9, 0.99))
        rows.append(
            {
                "device": device,
                "sessions": len(mine),
                "open": int(is_open.sum()),
                "p50_s": p50.value_s,
                "p50_lo_s": p50.lo_s,
                "p50_hi_s": p50.hi_s,
                "p90_s": p90.value_s,
                "p99_s": p99.value_s,
                "mean_s": float(mine.loc[~is_open, "length_s"].astype(float).mean()),
            }
        )
    return pd.DataFrame(rows)


def _active_days(spans: pd.DataFrame) -> pd.DataFrame:
    """Return user_id and day, once each, sorted: a span of days counts whole."""
    if spans.empty:
        return pd.DataFrame({"user_id": pd.Series(dtype=str), "day": pd.Series(dtype="datetime64[s]")})
    first = pd.to_datetime(spans["first_day"], unit="D")
    last = pd.to_datetime(spans["last_day"], unit="D")
    days = [pd.date_range(a, b, freq="D") for a, b in zip(first, last, strict=True)]
    active = pd.DataFrame({"user_id": spans["user_id"], "day": days}).explode("day")
    active["day"] = pd.to_datetime(active["day"])
    return active.drop_duplicates().sort_values(["user_id", "day"], ignore_index=True)


def _daily(active: pd.DataFrame) -> pd.DataFrame:
    if active.empty:
        return pd.DataFrame(columns=["day", "active", "new", "monthly", "stickiness"])
    every_day = pd.date_range(active["day"].min(), active["day"].max(), freq="D")
    count = active.groupby("day").size().reindex(every_day, fill_value=0)
    first = active.groupby("user_id")["day"].min().value_counts().reindex(every_day, fill_value=0)
    # A user counts for the month from an active day until it is over, or the next active day begins another.
    ends = active["day"] + pd.Timedelta(days=MONTH_DAYS)
    again = active.groupby("user_id")["day"].shift(-1)
    ends = ends.where(again.isna() | (ends < again), again)
    change = active["day"].value_counts().reindex(every_day, fill_value=0)
    change = change - ends.value_counts().reindex(every_day, fill_value=0)
    monthly = change.cumsum()
    return pd.DataFrame(
        {
            "day": every_day,
            "active": count.to_numpy(),
            "new": first.to_numpy(),
            "monthly": monthly.to_numpy(),
            "stickiness": (count / monthly).to_numpy(),
        }
    )


def _retention(active: pd.DataFrame) -> pd.DataFrame:
    columns = ["after_days", "users", "back", "share", "lo", "hi"]
    first = active.groupby("user_id")["day"].min()
    if first.empty:
        return pd.DataFrame(columns=columns)
    age = (active["day"].max() - first).dt.days  # what lies in the future is not a loss
    after = (active["day"] - active["user_id"].map(first)).dt.days
    back = after.value_counts()
    rows = []
    for k in range(1, int(age.max()) + 1):
        users, returned = int((age >= k).sum()), int(back.get(k, 0))
        interval = stats.binomtest(returned, users).proportion_ci(CONFIDENCE, method="exact")
        rows.append((k, users, returned, returned / users, interval.low, interval.high))
    return pd.DataFrame(rows, columns=columns)
