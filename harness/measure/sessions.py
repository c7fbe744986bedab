"""What became of sessions: resumed or unknown, flicker of presence, records that do not fit the clients.

From an indexed history and its tables to session_quality.csv and presence_flaps.csv. The client says what it was
told, the store watch what the store showed; the gateway is not asked.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy import stats

from harness.events.history import History, last_places
from harness.statistics.incidence import CONFIDENCE
from reference_server.events import EventKind, Source
from reports.run_tables import frame

__all__ = ["FLAP_WITHIN_S", "presence_flaps", "session_quality"]

FLAP_WITHIN_S = 60.0
"""Scenario seconds. Whoever is announced offline and is back sooner had only gone round the corner."""

Row = tuple[object, ...]


def session_quality(
    history: History, detections: pd.DataFrame, live: pd.DataFrame, flaps: pd.DataFrame
) -> pd.DataFrame:
    """Shares with exact 95 % intervals (Clopper and Pearson), one row each. Empty ``fault``: all sessions.

    * ``resumed``: returns to a session that had been connected, and were let in; of all such returns. Per
      fault that had hit the session.
    * ``stale_session_errors``: attempts to connect that were told "session unknown", of all attempts.
    * ``presence_flicker``: announcements "offline" that "online" of the same session followed within
      `FLAP_WITHIN_S`, of all such announcements, each watcher's counted.
    * ``records_of_dead_sessions``: sessions whose client had died for good and whose records were still
      there at the end, of all that died. ``records_left_after_verdict``: those of them that the gateway had
      suspected by then: the clean-up's part of it.
    * ``live_sessions_without_record``: at the last sample of the store, by how many its sessions were
      fewer than the live clients; ``records_of_nobody``: by how many they were more than live clients,
      ghosts and users who had logged in from elsewhere together. Counts, so one may hide the other; a page
      on its way back has a record and no connection.
    * ``ledger_inconsistencies``: differences between the gateways' memory, Redis and the ledger that lasted
      after the run (see `audit.py`), of sessions known to any of them. Real runs with a ledger only.

    Of a server that is not ours there are the rows that a witness of it sees, and no answer "session unknown".

    Args:
        history: of one engine.
        detections: of the same engine.
        population: population.csv of the same engine.
        flaps: what `presence_flaps` found.
    """
    seen = history.witnessed
    rows = [
        *_returns(history),
        *([_flicker_row(history, flaps)] if seen is None or "peers_notified" in seen else []),
        *(_left(history, detections) if seen is None or "store_cleared" in seen else []),
        *_balance(history, live),
        *_audited(history),
    ]
    return frame("session_quality", rows)


def presence_flaps(history: History, within_s: float = FLAP_WITHIN_S) -> pd.DataFrame:
    """Find each watcher that was told "offline" and, within so many scenario seconds, "online" of one session."""
    back: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in history.of(EventKind.PEER_ONLINE):
        back[str(event.detail.get("watcher", "")), event.session_id].append(history.time_s(event))
    rows: list[Row] = []
    for event in history.of(EventKind.PEER_NOTIFIED) if back else ():
        watcher, gone_s = str(event.detail.get("watcher", "")), history.time_s(event)
        again_s = min((t for t in back[watcher, event.session_id] if t >= gone_s), default=float("inf"))
        if again_s - gone_s <= within_s:
            user = str(event.detail.get("user_id", ""))
            rows.append((history.engine, event.session_id, user, watcher, gone_s, again_s - gone_s))
    return frame("presence_flaps", sorted(rows, key=lambda row: (row[4], row)))


def _row(history: History, fault: str, figure: str, count: int, of: int, note: str = "") -> Row:
    if not of:
        return history.engine, fault, figure, count, of, float("nan"), 0.0, 1.0, note
    interval = stats.binomtest(count, of).proportion_ci(CONFIDENCE, method="exact")
    return (history.engine, fault, figure, count, of, count / of, interval.low, interval.high, note)


def _returns(history: History) -> Iterator[Row]:
    faults, of = history.injected_faults, history.fault_columns
    hit = np.flatnonzero(~np.isnan(of.injected_s))
    resumed: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    came, told = (
        history.columns(EventKind.CONNECTED, Source.CLIENT),
        history.columns(EventKind.SESSION_UNKNOWN),
    )
    time_s, session = np.concatenate((came.time_s, told.time_s)), np.concatenate((came.session, told.session))
    unknown = np.repeat((False, True), (len(came), len(told)))
    attempts, stale = len(session), len(told)
    order = np.lexsort((unknown, time_s, session))
    session, unknown = session[order], unknown[order]
    place = np.arange(attempts)
    # In the order of each session's attempts: when it was let in for the first time.
    first_in = np.full(int(session.max(initial=0)) + 1, attempts)
    np.minimum.at(first_in, session[~unknown], place[~unknown])
    again = np.flatnonzero(place > first_in[session])
    its_fault = last_places(of.session[hit], session[again])
    for n, nth in zip(again, its_fault, strict=True):
        struck = nth >= 0 and of.injected_s[hit[nth]] <= time_s[order[n]]
        fault = faults[hit[nth]].planned.fault if struck else "no fault"
        (refused if unknown[n] else resumed)[fault] += 1
    total, lost = resumed.total(), refused.total()
    yield _row(history, "", "resumed", total, total + lost)
    for fault in sorted(resumed.keys() | refused.keys()):
        yield _row(history, fault, "resumed", resumed[fault], resumed[fault] + refused[fault])
    if history.witnessed is None:
        yield _row(history, "", "stale_session_errors", stale, attempts)


def _flicker_row(history: History, flaps: pd.DataFrame) -> Row:
    told = len(history.of(EventKind.PEER_NOTIFIED))
    sessions = flaps["session_id"].nunique()
    note = f"of {sessions} sessions" if sessions else ""
    return _row(history, "", "presence_flicker", len(flaps), told, note)


def _left(history: History, detections: pd.DataFrame) -> Iterator[Row]:
    """Some users stay; everyone else whose fault was not recovered from is dead at the end."""
    alive = {f.fault_id for f in history.plan.faults if f.params.user_stays}
    store = detections[detections["milestone"] == "store_cleared"]
    dead = store[store["outcome"].isin(["detected", "censored"]) & ~store["fault_id"].isin(alive)]
    left = dead.loc[dead["outcome"] == "censored", "fault_id"]
    verdict = detections[(detections["milestone"] == "suspected") & (detections["outcome"] == "detected")]
    yield _row(history, "", "records_of_dead_sessions", len(left), len(dead))
    decided = int(verdict["fault_id"].isin(left).sum())
    yield _row(history, "", "records_left_after_verdict", decided, len(dead))


def _balance(history: History, live: pd.DataFrame) -> Iterator[Row]:
    sampled = live.dropna(subset=["store_sessions"])
    if sampled.empty:
        return
    last = sampled.sort_values("time_s", kind="stable").iloc[-1]
    clients, ghosts, sessions = (int(last[name]) for name in ("live_clients", "ghosts", "store_sessions"))
    elsewhere = sum(1 for again in history.columns(EventKind.LOGGED_IN).told("relogin") if again)
    lacking = max(0, clients - sessions)
    too_many = max(0, sessions - clients - ghosts - elsewhere)
    at = f"at {last['time_s']:.0f} s: {sessions} records, {clients} live clients, {ghosts} ghosts"
    if elsewhere:
        at += f", {elsewhere} logins from elsewhere that have yet to connect"
    yield _row(history, "", "live_sessions_without_record", lacking, max(clients, lacking), at)
    yield _row(history, "", "records_of_nobody", too_many, max(sessions, too_many), at)


def _audited(history: History) -> Iterator[Row]:
    for event in history.audits:
        if "error" in event.detail:
            continue  # nothing could be compared; the log says why
        kinds = event.detail["differences"]
        count = sum(kinds.values())
        note = ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items()))
        # One session may differ in more ways than one.
        of = max(int(event.detail["sessions"]), count)
        yield _row(history, "", "ledger_inconsistencies", count, of, note)
