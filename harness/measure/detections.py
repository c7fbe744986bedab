"""Milestones of every planned fault: from an indexed history to the rows of detections.csv.

Each milestone is taken from the witness that can see it and from no other:

* ``suspected``, ``socket_closed``: the gateway, on the connection that the fault hit. A refresh's new
  connection, or a later session of the same user, is another one. Of a server that is not ours: the observer, and
  only what a witness of the target sees.
* ``store_cleared``: the store watch's first look that found the session's records gone; of a server that is not ours,
  the observer's, of the record that the target names. They went between the look before, which ``earliest_s`` has, and
  that one.
* ``peers_notified``: the last of the clients that the plan has watching this user was told of the end
  of *this session*, or, by a server that is not ours, of this user's. One who is never told leaves it censored.
* ``locked_out``: until a login of the dead client's user, from elsewhere, is accepted; zero where the
  first attempt is. Not applicable to faults without such a user, or where the run ends before the first attempt.

Outcomes: ``recovered`` is a client that was alive on its session again strictly before the milestone.
A fault is ``not_applicable`` where it never took effect, where the gateway had already given its
connection up (a false suspicion came first: there was nothing left to detect), where a milestone cannot
happen, or where its witness left no log: watching without a witness would be no censoring.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.events.columns import Codes, Flags, Floats, Texts, texts
from harness.events.history import Columns, History, last_places, pairs
from harness.events.incident_windows import incident_windows
from reference_server.events import EventKind, Source
from reports.run_tables import MILESTONES, frame, frame_of_columns

__all__ = ["Outcomes", "find_outcomes", "first_of_each"]

_NODE_DIED = "the node was killed before it closed the socket: its kernel did, and nobody saw it"
_NO_LOG = "no log of the {}"


class Outcomes(NamedTuple):
    """Detections (one row per fault and milestone), and why some of them are not applicable."""

    detections: pd.DataFrame
    not_applicable: pd.DataFrame


class _Seen(NamedTuple):
    """Of each fault, when a milestone was reached, or why it cannot be; arrays of shape (faults,)."""

    time_s: Floats  # NaN: it was not
    cause: Texts
    node: Texts
    after_s: Floats  # it happened between then and time_s; NaN: at time_s
    missing: Texts  # the reason why it cannot be; empty: it can

    def where(self, possible: Flags, reason: str) -> _Seen:
        """The same, with the reason where it is not possible and none is given yet."""
        missing = self.missing.copy()
        missing[~possible & (missing == "")] = reason
        return self._replace(missing=missing)


def find_outcomes(history: History) -> Outcomes:
    """Follow every planned fault through all milestones."""
    follow = _Follower(history)
    faults = history.injected_faults
    found = [follow.find(milestone) for milestone in MILESTONES]
    told = [follow.outcome(one) for one in found]
    each = len(MILESTONES)

    def of_fault(values: Sequence[Any] | NDArray[Any]) -> NDArray[Any]:
        return np.repeat(np.asarray(values), each)

    def of_milestone(arrays: list[NDArray[Any]]) -> NDArray[Any]:
        return np.stack(arrays, axis=1).ravel() if len(faults) else np.zeros(0)

    n = len(faults) * each
    reasons: Counter[tuple[str, str, str, str]] = Counter()
    for milestone, seen in zip(MILESTONES, found, strict=True):
        for place in np.flatnonzero(seen.missing != ""):
            reasons[history.engine, faults[place].planned.fault, milestone, seen.missing[place]] += 1
    columns = [
        np.full(n, history.engine, dtype=object),
        of_fault(texts(f.planned.fault_id for f in faults)),
        of_fault(texts(f.planned.fault for f in faults)),
        of_fault(texts(f.session_id for f in faults)),
        of_fault(follow.node),
        np.tile(texts(MILESTONES), len(faults)),
        of_milestone([one.cause for one in told]),
        of_milestone([one.outcome for one in told]),
        of_fault(follow.injected_s),
        of_milestone([one.duration_s for one in told]),
        np.full(n, history.clock.speedup),
        of_milestone([one.earliest_s for one in told]),
    ]
    return Outcomes(
        frame_of_columns("detections", columns),
        frame("not_applicable", [(*key, count) for key, count in sorted(reasons.items())]),
    )


def first_of_each(fault: Codes, seen: Columns, event: Codes, *, by_node: bool = False) -> tuple[Codes, Codes]:
    """The first event of each fault, of pairs of them; of those at the same moment the cause decides, a stable winner.

    Args:
        fault: of each pair, ascending, shape (n,).
        seen: the events.
        event: of each pair, its place in ``seen``, shape (n,).
        by_node: of equal causes the node decides, too.

    Returns:
        Faults that have one, and the place of it.
    """
    last = (seen.node_rank[event],) if by_node else ()
    order = np.lexsort((*last, seen.cause_rank[event], seen.time_s[event], fault))
    fault, event = fault[order], event[order]
    first = np.diff(fault, prepend=-1) != 0
    return fault[first], event[first]


class _Outcome(NamedTuple):
    """Of one milestone; arrays of shape (faults,)."""

    outcome: Texts
    duration_s: Floats  # scenario seconds
    cause: Texts  # the layer that caught it
    earliest_s: Floats


class _Follower:
    def __init__(self, history: History) -> None:
        self._h = history
        self._faults = history.injected_faults
        self._of = history.fault_columns
        self.injected_s = self._of.injected_s
        self._windows = incident_windows(history)
        self._server = Source.GATEWAY if history.witnessed is None else Source.OBSERVER
        held = history.columns(EventKind.CONNECTED, Source.GATEWAY)
        named = np.flatnonzero((held.connection != 0) & (held.node != ""))
        place = last_places(held.connection[named], self._of.connection)
        self._on_node = np.full(len(self._faults), "", dtype=object)
        self._on_node[place >= 0] = held.node[named[place[place >= 0]]]
        self._hopeless = self._why_hopeless()
        self._possible = np.flatnonzero(self._hopeless == "")
        self._verdict = self._first_on_connection(EventKind.SUSPECTED)
        self.node = np.where(self._verdict.node != "", self._verdict.node, self._on_node)

    def _nothing(self) -> _Seen:
        n = len(self._faults)
        empty = np.full(n, "", dtype=object)
        return _Seen(np.full(n, np.nan), empty, empty, np.full(n, np.nan), self._hopeless)

    def _why_hopeless(self) -> Texts:
        """Why nothing about a fault can be measured; empty where it can."""
        of, seen = self._of, self._h.columns(EventKind.SUSPECTED)
        reasons = np.full(len(self._faults), "", dtype=object)
        i, j = pairs(of.session, seen.session)
        # Only on the very connection: a verdict without one may be about an older connection.
        same = (of.connection[i] != 0) & (seen.connection[j] == of.connection[i])
        before = seen.time_s[j] < of.injected_s[i]
        reasons[i[same & before]] = "the gateway had given the connection up before the fault"
        reasons[of.session == 0] = "the client had no session"
        reasons[np.isnan(of.injected_s)] = "the fault never took effect"
        return reasons

    def find(self, milestone: str) -> _Seen:
        """When each fault reached a milestone."""
        watch = Source.STORE if self._h.witnessed is None else Source.OBSERVER
        if self._h.witnessed is not None and milestone not in self._h.witnessed:
            return self._all_missing("no witness of this target sees it")
        match milestone:
            case "suspected" | "socket_closed" if not self._h.saw(self._server):
                return self._all_missing(_NO_LOG.format(self._server))
            case "suspected":
                return self._verdict
            case "socket_closed":
                closed = self._first_on_connection(EventKind.SOCKET_CLOSED)
                return closed.where(~self._died_first(closed), _NODE_DIED)
            case "store_cleared" if not self._h.saw(watch):
                return self._all_missing(_NO_LOG.format("store watch" if watch is Source.STORE else watch))
            case "store_cleared":
                return self._first(self._h.columns(EventKind.STORE_CLEARED))
            case "peers_notified":
                return self._last_watcher()
            case _:
                return self._accepted_login()

    def _all_missing(self, reason: str) -> _Seen:
        return self._nothing().where(np.zeros(len(self._faults), dtype=bool), reason)

    def _died_first(self, closed: _Seen) -> Flags:
        """Whether the node was killed after the fault and before it closed the socket: its kernel did then."""
        until_s = np.where(np.isnan(closed.time_s), self._h.end_s, closed.time_s)
        died = np.zeros(len(self._faults), dtype=bool)
        for window in self._windows:
            if window.kills_node:
                during = (self.injected_s <= window.start_s) & (window.start_s <= until_s)
                died |= during & (self._on_node == window.node)
        return died

    def _first_on_connection(self, kind: EventKind) -> _Seen:
        return self._first(self._h.columns(kind), on_connection=True)

    def _first(self, seen: Columns, *, on_connection: bool = False) -> _Seen:
        """The first event about each fault's session, or the very connection, since the fault."""
        i, j = pairs(self._of.session[self._possible], seen.session)
        i = self._possible[i]
        if on_connection:
            ours, its = self._of.connection[i], seen.connection[j]
            keep = (its == ours) | (its == 0) | (ours == 0)
            i, j = i[keep], j[keep]
        return self._first_of(i, seen, j)

    def _first_of(self, i: Codes, seen: Columns, j: Codes) -> _Seen:
        keep = seen.time_s[j] >= self.injected_s[i]
        i, j = first_of_each(i[keep], seen, j[keep], by_node=True)
        looked_s = seen.events.told("previous_poll_s")[j].astype(float)  # None: NaN
        after_s = self._h.clock.scenario_s(looked_s)
        found = self._nothing()
        cause, node = found.cause.copy(), found.node.copy()
        found.time_s[i], cause[i], node[i], found.after_s[i] = (
            seen.time_s[j],
            seen.cause[j],
            seen.node[j],
            after_s,
        )
        return found._replace(cause=cause, node=node)

    def _last_watcher(self) -> _Seen:
        watched = Counter(one for clients in self._h.plan.watches.values() for one in set(clients))
        expected = np.array([watched[f.planned.client] for f in self._faults], dtype=np.int64)
        found = self._nothing().where(expected > 0, "nobody watches this user")
        told, possible = self._h.columns(EventKind.PEER_NOTIFIED), self._possible
        users = self._h.codes([f"user-{self._faults[n].planned.client}" for n in possible.tolist()])
        both = [pairs(self._of.session[possible], told.session), pairs(users, told.session)]
        i = possible[np.concatenate([i for i, _ in both])]
        j = np.concatenate([j for _, j in both])
        keep = told.time_s[j] >= self.injected_s[i]
        i, j = i[keep], j[keep]
        by = self._h.codes(map(str, told.told("watcher")))[j]
        order = np.lexsort((told.time_s[j], by, i))
        i, j, by = i[order], j[order], by[order]
        first = (np.diff(i, prepend=-1) != 0) | (np.diff(by, prepend=-1) != 0)
        i, time_s = i[first], told.time_s[j[first]]
        count = np.bincount(i, minlength=len(self._faults))
        last_s = np.full(len(self._faults), -np.inf)
        np.maximum.at(last_s, i, time_s)
        all_told = (expected > 0) & (count >= expected)
        return found._replace(time_s=np.where(all_told, last_s, np.nan))

    def _accepted_login(self) -> _Seen:
        tries_s = np.array(
            [np.nan if (s := f.planned.relogin_after_s) is None else s for f in self._faults], dtype=float
        )
        place = {f.planned.fault_id: n for n, f in enumerate(self._faults)}
        accepted = self._h.columns(EventKind.LOGGED_IN)
        of_fault = np.array([place.get(one, -1) for one in accepted.told("fault_id")], dtype=np.int64)
        i, j = pairs(self._possible, of_fault)
        found = self._first_of(self._possible[i], accepted, j)
        refused = set(self._h.columns(EventKind.LOGIN_REFUSED).told("fault_id"))
        at_once = ~np.isnan(found.time_s) & ~np.array(
            [f.planned.fault_id in refused for f in self._faults], dtype=bool
        )
        # Their own wait before the first attempt is not a lock-out.
        found.time_s[at_once] = self.injected_s[at_once]
        found.cause[at_once] = ""
        found.after_s[at_once] = np.nan
        found = found.where(~np.isnan(tries_s), "the user does not try again")
        too_late = self.injected_s + tries_s > self._h.end_s
        return found.where(~too_late, "the run ends before the user tries again")

    def outcome(self, found: _Seen) -> _Outcome:
        """What became of each fault at a milestone."""
        n, back_s, verdict = len(self._faults), self._of.recovered_s, self._verdict
        possible = found.missing == ""
        detected = possible & (found.time_s <= back_s)
        recovered = possible & ~detected & (back_s < np.inf)
        outcome = np.full(n, "not_applicable", dtype=object)
        outcome[possible] = "censored"
        outcome[detected], outcome[recovered] = "detected", "recovered"
        until_s = np.where(detected, found.time_s, np.where(recovered, back_s, self._h.end_s))
        duration_s = np.where(possible, until_s - self.injected_s, np.nan)
        by_verdict = np.where(verdict.time_s <= found.time_s, verdict.cause, "")
        cause = np.where(detected, np.where(found.cause != "", found.cause, by_verdict), "")
        earliest_s = np.minimum(duration_s, np.maximum(0.0, found.after_s - self.injected_s))
        between = detected & ~np.isnan(found.after_s)
        return _Outcome(outcome, duration_s, cause, np.where(between, earliest_s, duration_s))
