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
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import pandas as pd

from harness.events.history import History, InjectedFault
from harness.events.incident_windows import incident_windows
from reference_server.events import Event, EventKind, Source
from reports.run_tables import MILESTONES, frame

__all__ = ["Outcomes", "find_outcomes"]

_NODE_DIED = "the node was killed before it closed the socket: its kernel did, and nobody saw it"
_NO_LOG = "no log of the {}"


class Outcomes(NamedTuple):
    """Detections (one row per fault and milestone), and why some of them are not applicable."""

    detections: pd.DataFrame
    not_applicable: pd.DataFrame


class _Seen(NamedTuple):
    """A milestone that was reached."""

    time_s: float
    cause: str = ""
    node: str = ""
    after_s: float | None = None  # it happened between then and time_s; None: at time_s


class _Missing(NamedTuple):
    """A milestone that cannot be."""

    reason: str


def find_outcomes(history: History) -> Outcomes:
    """Follow every planned fault through all milestones."""
    follow = _Follower(history)
    rows: list[tuple[object, ...]] = []
    reasons: Counter[tuple[str, str, str, str]] = Counter()
    for injected in history.injected_faults:
        for milestone, row, reason in follow(injected):
            rows.append(row)
            if reason:
                reasons[history.engine, injected.planned.fault, milestone, reason] += 1
    return Outcomes(
        frame("detections", rows),
        frame("not_applicable", [(*key, count) for key, count in sorted(reasons.items())]),
    )


class _Follower:
    def __init__(self, history: History) -> None:
        self._h = history
        self._windows = incident_windows(history)
        self._server = Source.GATEWAY if history.witnessed is None else Source.OBSERVER
        self._suspected = history.by_session(EventKind.SUSPECTED)
        self._closed = history.by_session(EventKind.SOCKET_CLOSED)
        self._cleared = history.by_session(EventKind.STORE_CLEARED)
        self._told = history.by_session(EventKind.PEER_NOTIFIED)
        self._accepted = history.by_fault(EventKind.LOGGED_IN)
        self._refused = history.by_fault(EventKind.LOGIN_REFUSED)
        self._nodes = {
            event.connection_id: event.node
            for event in history.of(EventKind.CONNECTED, Source.GATEWAY)
            if event.connection_id and event.node
        }
        self._watchers = Counter(
            watched for clients in history.plan.watches.values() for watched in set(clients)
        )

    def __call__(self, injected: InjectedFault) -> Iterator[tuple[str, tuple[object, ...], str]]:
        """Yield (milestone, row, reason why it is not applicable) for each milestone."""
        h, fault = self._h, injected.planned
        hopeless = self._hopeless(injected)
        verdict = self._first_on_connection(self._suspected, injected) if not hopeless else None
        node = (verdict.node if verdict else "") or self._nodes.get(injected.connection_id, "")
        for milestone in MILESTONES:
            found = _Missing(hopeless) if hopeless else self._find(milestone, injected, verdict)
            outcome, duration_s, cause = self._outcome(injected, found, verdict)
            injected_s = float("nan") if injected.injected_s is None else injected.injected_s
            earliest_s = duration_s
            if outcome == "detected" and isinstance(found, _Seen) and found.after_s is not None:
                earliest_s = min(duration_s, max(0.0, found.after_s - injected_s))
            row = (
                h.engine,
                fault.fault_id,
                fault.fault,
                injected.session_id,
                node,
                milestone,
                cause,
                outcome,
                injected_s,
                duration_s,
                h.clock.speedup,
                earliest_s,
            )
            yield milestone, row, found.reason if isinstance(found, _Missing) else ""

    def _hopeless(self, injected: InjectedFault) -> str:
        """Why nothing about this fault can be measured; empty where it can."""
        if injected.injected_s is None:
            return "the fault never took effect"
        if not injected.session_id:
            return "the client had no session"
        for event in self._suspected.get(injected.session_id, []):
            # Only on the very connection: a verdict without one may be about an older connection.
            if (
                injected.connection_id
                and event.connection_id == injected.connection_id
                and self._h.time_s(event) < injected.injected_s
            ):
                return "the gateway had given the connection up before the fault"
        return ""

    def _find(
        self, milestone: str, injected: InjectedFault, verdict: _Seen | None
    ) -> _Seen | _Missing | None:
        match milestone:
            case _ if self._h.witnessed is not None and milestone not in self._h.witnessed:
                return _Missing("no witness of this target sees it")
            case "suspected":
                return verdict if self._h.saw(self._server) else _Missing(_NO_LOG.format(self._server))
            case "socket_closed":
                if not self._h.saw(self._server):
                    return _Missing(_NO_LOG.format(self._server))
                closed = self._first_on_connection(self._closed, injected)
                return _Missing(_NODE_DIED) if self._died_first(injected, closed) else closed
            case "store_cleared":
                watch = Source.STORE if self._h.witnessed is None else Source.OBSERVER
                if not self._h.saw(watch):
                    return _Missing(_NO_LOG.format("store watch" if watch is Source.STORE else watch))
                return self._first(self._cleared.get(injected.session_id, []), injected)
            case "peers_notified":
                return self._last_watcher(injected)
            case _:
                return self._accepted_login(injected)

    def _died_first(self, injected: InjectedFault, closed: _Seen | None) -> bool:
        """Whether the node was killed after the fault and before it closed the socket: its kernel did then."""
        if not self._windows:
            return False
        assert injected.injected_s is not None
        node, until_s = (
            self._nodes.get(injected.connection_id, ""),
            closed.time_s if closed else self._h.end_s,
        )
        return any(
            window.kills_node and window.node == node and injected.injected_s <= window.start_s <= until_s
            for window in self._windows
        )

    def _first_on_connection(self, events: dict[str, list[Event]], injected: InjectedFault) -> _Seen | None:
        ours = injected.connection_id
        found = events.get(injected.session_id, [])
        return self._first(
            [e for e in found if e.connection_id == ours or not e.connection_id or not ours], injected
        )

    def _first(self, events: Iterable[Event], injected: InjectedFault) -> _Seen | None:
        assert injected.injected_s is not None
        first: _Seen | None = None
        for event in events:
            time_s = self._h.time_s(event)
            if time_s >= injected.injected_s:
                looked_s = event.detail.get("previous_poll_s")
                after_s = None if looked_s is None else self._h.clock.scenario_s(float(looked_s))
                seen = _Seen(time_s, event.cause, event.node, after_s)
                # Two verdicts at the same moment have a stable winner.
                first = seen if first is None or seen[:3] < first[:3] else first
        return first

    def _last_watcher(self, injected: InjectedFault) -> _Seen | _Missing | None:
        expected = self._watchers[injected.planned.client]
        if not expected:
            return _Missing("nobody watches this user")
        assert injected.injected_s is not None
        told: dict[object, float] = {}
        user = f"user-{injected.planned.client}"
        for event in self._told.get(injected.session_id, []) + self._told.get(user, []):
            time_s = self._h.time_s(event)
            if time_s >= injected.injected_s:
                watcher = event.detail.get("watcher")
                told[watcher] = min(time_s, told.get(watcher, time_s))
        return _Seen(max(told.values())) if len(told) >= expected else None

    def _accepted_login(self, injected: InjectedFault) -> _Seen | _Missing | None:
        after_s = injected.planned.relogin_after_s
        if after_s is None:
            return _Missing("the user does not try again")
        assert injected.injected_s is not None
        if injected.injected_s + after_s > self._h.end_s:
            return _Missing("the run ends before the user tries again")
        fault_id = injected.planned.fault_id
        accepted = self._first(self._accepted.get(fault_id, []), injected)
        if accepted and not self._refused.get(fault_id):
            # Their own wait before the first attempt is not a lock-out.
            return _Seen(injected.injected_s)
        return accepted

    def _outcome(
        self, injected: InjectedFault, found: _Seen | _Missing | None, verdict: _Seen | None
    ) -> tuple[str, float, str]:
        """Return outcome, duration in scenario seconds, and the layer that caught it."""
        if isinstance(found, _Missing):
            return "not_applicable", float("nan"), ""
        assert injected.injected_s is not None
        back_s = injected.recovered_s
        if found is not None and (back_s is None or found.time_s <= back_s):
            by_verdict = verdict.cause if verdict and verdict.time_s <= found.time_s else ""
            return "detected", found.time_s - injected.injected_s, found.cause or by_verdict
        if back_s is not None:
            return "recovered", back_s - injected.injected_s, ""
        return "censored", self._h.end_s - injected.injected_s, ""
