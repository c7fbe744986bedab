"""Does a history keep what the gateway promises? From entries to violations, each with a sentence. Pure.

What must hold, whatever befell nodes, Redis, ledger, network and clocks:

============== =====================================================================================
kind           what is wrong
============== =====================================================================================
thrown_out     a healthy client's connection ended, and nothing had happened to it or its node
older_won      a connection was taken over, and only older ones had asked for its slot
session_lost   a client within its resume window was told that its session is unknown
login_undone   the session of an acknowledged login is unknown to Redis, or has no row in the ledger
logout_undone  a session that an acknowledged logout ended lets somebody in, or its row is not over
two_owners     two healthy connections of one slot, and both are served
ghost          Redis shows a slot online whose clients are all gone
gap            a healthy client is connected, and Redis does not show it as it is
wrong_offline  a watcher was told offline of a user who stayed
wrong_belief   what a watcher was told last is not so, and nothing more comes
wrong_reaping  a node ended a session as one of a dead node, and that node lived
not_let_in     a client has no answer while nothing is wrong, or tries in vain long after everything was healed
still_in       a session that an acknowledged logout ended has a connection that is served
died           a node ended by itself
inconsistent   memory, Redis and ledger differ in the end (`harness/user_sessions/audit.py`)
============== =====================================================================================

What may be excused, and why: nobody can know a node that stands still or is cut off from Redis from a dead one, so its
sessions may be ended by its peers once its lease could be over. Where Redis has lost what it had acknowledged
(`Kind.loses`), sessions that only it knew are gone. After a fault everything has its bound to mend itself: what only
time can tell is judged once nothing has happened for `Schedule.settle_s`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from harness.torture.history import Entry
from harness.torture.schedule import KINDS, Schedule

__all__ = ["BOUNDS", "Bounds", "Violation", "check", "is_sound"]

_EVER = float("inf")
_FINAL = ("logout", "unacknowledged")  # of a row in the ledger
_WATCHER = 100
_ENDS = ("crash", "host", "drain")  # a node
_BLOCKS = ("pause", "partition", "disconnect")  # its renewals
_STORE_IS_AWAY = ("restart", "empty_restart", "store_pause")
_LEDGER = ("ledger_unavailable",)  # an answer after which Redis has it all the same


@dataclass(frozen=True, slots=True)
class Bounds:
    """The times that the nodes are told, and what follows from them. Seconds."""

    interval_s: float = 0.5
    timeout_s: float = 0.5
    failures: int = 3
    resume_s: float = 1.5
    lease_ttl_s: float = 2.0
    lease_renew_s: float = 0.5
    lease_check_s: float = 0.5
    status_ttl_s: float = 8.0
    slack_s: float = 0.5  # of a busy machine

    @property
    def patience_s(self) -> float:
        """The shortest silence that can make a suspicion."""
        return (self.failures - 1) * self.interval_s + self.timeout_s

    @property
    def lease_s(self) -> float:
        """A node that does not renew for less than this keeps its lease."""
        return self.lease_ttl_s - self.lease_renew_s

    @property
    def after_s(self) -> float:
        """How long after a fault of a node its peers may still act on it."""
        return self.lease_ttl_s + self.lease_check_s + self.slack_s

    @property
    def outage_s(self) -> float:
        """After an outage of Redis that is at least so long, every node waits for a lease before it reaps."""
        return self.lease_ttl_s / 2 + self.slack_s

    @property
    def kick_s(self) -> float:
        """How long after a take-over the older connection may be served, where nothing happens."""
        return 1.0 + self.slack_s


BOUNDS = Bounds()
_MOST_LAG_S = BOUNDS.patience_s / 2


@dataclass(frozen=True, slots=True, order=True)
class Violation:
    """Something that must not be."""

    at_s: float
    kind: str
    about: str  # a session, a slot or a user
    sentence: str


@dataclass(slots=True)
class _Op:
    """Something that was asked, and its answer."""

    number: int
    what: str
    asked_s: float
    asked: Entry
    answered_s: float = _EVER
    outcome: str = "unknown"
    answer: Entry | None = None

    @property
    def may_have_happened(self) -> bool:
        """Whether it is not known to have failed."""
        return self.outcome != "failed"

    @property
    def code(self) -> str:
        """Of an error."""
        return str(self.answer.get("code")) if self.answer is not None else ""


@dataclass(slots=True)
class _Link(_Op):
    """One connection: asked for, perhaps served, perhaps ended."""

    ended_s: float = _EVER
    ended_by: str = ""
    code_of_end: int = 0
    silences: list[list[float]] = field(default_factory=list)

    @property
    def client(self) -> int:
        """Whose it is."""
        return int(self.asked["client"])

    @property
    def session(self) -> str:
        """Which session it is for."""
        return str(self.asked["session"])

    @property
    def node(self) -> int:
        """Where it is."""
        return int(self.asked["node"])

    @property
    def served(self) -> bool:
        """Whether it got its session."""
        return self.outcome == "ok"

    def silent_at(self, at_s: float, for_s: float = 0.0) -> bool:
        """Whether its network was gone at a time, or within so many seconds before."""
        return any(began_s <= at_s and over_s >= at_s - for_s for began_s, over_s in self.silences)


@dataclass(frozen=True, slots=True)
class _Fault:
    """Something that happened to a node (from 1), or to store or ledger (0)."""

    kind: str
    node: int
    began_s: float
    over_s: float

    def touches(self, since_s: float, until_s: float) -> bool:
        """Whether it overlaps an interval."""
        return self.began_s <= until_s and self.over_s >= since_s


def is_sound(history: Sequence[Entry]) -> bool:
    """Whether the clients were as healthy as they were meant to be: their own loop was never too late."""
    return all(entry["lag_s"] <= _MOST_LAG_S for entry in history if entry.what == "final")


def check(schedule: Schedule, history: Sequence[Entry], bounds: Bounds = BOUNDS) -> list[Violation]:
    """Return every violation in a history, sorted by time.

    Args:
        schedule: who has which user and device.
        history: its entries, in order.
        bounds: of the nodes that made it.
    """
    return sorted(set(_Replay(schedule, history, bounds).violations()))


class _Replay:
    def __init__(self, schedule: Schedule, history: Sequence[Entry], bounds: Bounds) -> None:
        self._schedule = schedule
        self._bounds = bounds
        self._history = history
        self._links: dict[int, _Link] = {}
        self._ops: dict[int, _Op] = {}
        self._faults: list[_Fault] = []
        self._final: Entry | None = None
        self._settled: Entry | None = None
        self._end_s = history[-1].at_s if history else 0.0
        self._told: dict[int, list[Entry]] = defaultdict(list)  # by the watcher's connection
        self._store: list[Entry] = []
        self._probes: list[Entry] = []
        self._died: list[Violation] = []
        self._reaped: list[Entry] = []
        for entry in history:
            self._take(entry)
        self._by_slot: dict[str, list[_Link]] = defaultdict(list)
        self._by_session: dict[str, list[_Link]] = defaultdict(list)
        for link in self._links.values():
            self._by_session[link.session].append(link)
            if link.client < _WATCHER:
                self._by_slot[schedule.slot_of(link.client)].append(link)
        self._losses = [fault for fault in self._faults if KINDS[fault.kind].loses]

    def _take(self, entry: Entry) -> None:
        match entry.what:
            case "connect" if entry.get("outcome") is None:
                self._links[entry["op"]] = _Link(entry["op"], "connect", entry.at_s, entry)
            case "login" | "logout" | "kick" if entry.get("outcome") is None:
                self._ops[entry["op"]] = _Op(entry["op"], entry.what, entry.at_s, entry)
            case "connect" | "login" | "logout" | "kick":
                op = self._links[entry["op"]] if entry.what == "connect" else self._ops[entry["op"]]
                op.answered_s, op.outcome, op.answer = entry.at_s, entry["outcome"], entry
            case "ended" if self._final is None:
                link = self._links[entry["op"]]
                link.ended_s, link.ended_by, link.code_of_end = entry.at_s, entry["by"], entry["code"]
            case "silent":
                self._links[entry["op"]].silences.append([entry.at_s, _EVER])
            case "heard":
                self._links[entry["op"]].silences[-1][1] = entry.at_s
            case "told":
                self._told[entry["op"]].append(entry)
            case "fault":
                self._faults.append(_Fault(entry["kind"], entry["node"], entry.at_s, _EVER))
            case "over":
                n = max(
                    n
                    for n, one in enumerate(self._faults)
                    if (one.kind, one.node, one.over_s) == (entry["kind"], entry["node"], _EVER)
                )
                begun = self._faults[n]
                self._faults[n] = _Fault(begun.kind, begun.node, begun.began_s, entry.at_s)
            case "reaped":
                self._reaped.append(entry)
            case "store":
                self._store.append(entry)
            case "settled":
                self._settled = entry
            case "final":
                self._final, self._end_s = entry, entry.at_s
            case "probe":
                self._probes.append(entry)
            case "died":
                self._died.append(Violation(entry.at_s, "died", entry["name"], entry["says"]))

    def violations(self) -> Iterator[Violation]:
        yield from self._died
        for link in self._links.values():
            yield from self._end_of(link)
            yield from self._refusal_of(link)
            yield from self._silence_to(link)
        yield from self._two_owners()
        yield from self._logouts()
        yield from self._offlines()
        yield from self._reapings()
        if self._settled is not None:
            yield from self._at_rest(self._settled)
        if self._final is not None:
            yield from self._in_the_end(self._final)

    # -- what had happened -------------------------------------------------------------------------

    def _fault_of(self, node: int, kinds: Iterable[str], since_s: float, until_s: float) -> bool:
        return any(
            fault.kind in kinds and fault.node in (node, 0) and fault.touches(since_s, until_s)
            for fault in self._faults
        )

    def _node_was_in_doubt(self, node: int, since_s: float, until_s: float) -> bool:
        """Whether its peers may have thought it dead: it was, or it could not renew its lease for long enough.

        While Redis is away leases end as well, but nobody reaps before everybody could renew: an outage adds to what a
        node has missed by itself, it does not begin it.
        """
        b = self._bounds
        gap_s = b.lease_renew_s + b.slack_s  # without time for a renewal in between, two make one
        spans: list[list[_Fault]] = []
        over_s = -_EVER
        for fault in sorted(self._faults, key=lambda one: one.began_s):
            if (fault.node == node and fault.kind in (*_ENDS, *_BLOCKS)) or fault.kind in _STORE_IS_AWAY:
                if fault.began_s > over_s + gap_s:
                    spans.append([])
                    over_s = fault.over_s
                spans[-1].append(fault)
                over_s = max(over_s, fault.over_s)
        for span in spans:
            own = [fault for fault in span if fault.node == node]
            began_s, over_s = span[0].began_s, max(fault.over_s for fault in span)
            long_enough = over_s - began_s >= b.lease_s - b.slack_s or any(
                fault.kind in _ENDS for fault in own
            )
            if own and long_enough and began_s <= until_s and over_s + b.after_s >= since_s:
                return True
        return False

    def _was_disturbed(self, link: _Link) -> bool:
        """Whether its answer may be late: its node or the store had a fault. A wrong clock makes nobody wait."""
        kinds = [kind for kind in KINDS if kind != "clock"]
        return self._fault_of(link.node, kinds, link.asked_s - self._bounds.after_s, link.answered_s)

    def _lost_since(self, since_s: float, until_s: float) -> bool:
        """Whether Redis lost what it had acknowledged, in an interval."""
        return any(fault.touches(since_s, until_s) for fault in self._losses)

    def _ended_on_purpose(self, session: str, user: str, until_s: float) -> float:
        """When a session was first to be ended by a logout or a kick that may have happened; inf: never."""
        return min(
            (
                op.asked_s
                for op in self._ops.values()
                if op.asked_s <= until_s
                and (op.may_have_happened or op.code in _LEDGER)
                and (
                    (op.what == "logout" and op.asked["session"] == session)
                    or (op.what == "kick" and op.asked["user"] == user)
                )
            ),
            default=_EVER,
        )

    def _user(self, link: _Link) -> str:
        return "" if link.client >= _WATCHER else self._schedule.user_of(link.client)

    def _slot(self, link: _Link) -> str:
        return f"watcher-{link.client}" if link.client >= _WATCHER else self._schedule.slot_of(link.client)

    def _healthy_at(self, at_s: float) -> list[_Link]:
        return [
            link
            for link in self._links.values()
            if link.served and link.answered_s <= at_s < link.ended_s and not link.silent_at(at_s)
        ]

    # -- connections -------------------------------------------------------------------------------

    def _end_of(self, link: _Link) -> Iterator[Violation]:
        if not link.served or link.ended_by != "peer":
            return
        at_s, b = link.ended_s, self._bounds
        name = f"the connection of client {link.client} to node-{link.node}"
        match link.code_of_end:
            case 4409:
                others = [one for one in self._by_slot[self._slot(link)] if one is not link]
                asked = [one for one in others if one.asked_s <= at_s and one.may_have_happened]
                if not any(one.answered_s >= link.asked_s for one in asked):
                    kind, why = "thrown_out", "nobody else had asked for its slot"
                    if asked:
                        kind, why = "older_won", "only older ones had asked for its slot"
                        differ = any(self._schedule.clocks_s) or self._fault_of(
                            link.node, ["clock"], 0.0, at_s
                        )
                        if differ and self._lost_since(0.0, at_s):
                            return  # clocks that disagree decide after a flush
                    yield Violation(at_s, kind, link.session, f"{name} was taken over: {why}")
            case 1000 | 4410:
                if self._ended_on_purpose(link.session, self._user(link), at_s) == _EVER:
                    yield Violation(
                        at_s,
                        "thrown_out",
                        link.session,
                        f"{name} ended ({link.code_of_end}), by nobody's wish",
                    )
            case code:
                node_went = self._fault_of(link.node, _ENDS, at_s - b.slack_s, at_s)
                # A host's old connections are reset when it is back and something is sent.
                node_went |= self._fault_of(link.node, ["host"], link.answered_s, at_s)
                # TCP tries again at doubling pauses: it may be silent for as long again as its network was gone.
                was_silent = any(
                    2 * (over_s - began_s) > b.patience_s - b.slack_s / 2 for began_s, over_s in link.silences
                )
                if not node_went and not was_silent:
                    says = "without a word" if code == 1006 else f"with {code}"
                    yield Violation(
                        at_s, "thrown_out", link.session, f"{name} ended {says}, and it was healthy"
                    )

    def _refusal_of(self, link: _Link) -> Iterator[Violation]:
        if link.outcome != "failed" or link.code not in ("session_unknown", "wrong_user"):
            return
        at_s, b, session = link.answered_s, self._bounds, link.session
        others = self._by_slot[self._slot(link)] if link.client < _WATCHER else []
        since_s = min((one.asked_s for one in self._by_session[session]), default=at_s)
        if self._ended_on_purpose(session, self._user(link), at_s) < _EVER or any(
            one.session != session
            and since_s <= one.answered_s
            and one.asked_s <= at_s
            and one.may_have_happened
            for one in others
        ):
            return
        before = [
            one for one in self._by_session[session] if one.asked_s < link.asked_s and one.may_have_happened
        ]
        login_s = next(
            (
                op.answered_s
                for op in self._ops.values()
                if op.answer is not None and op.answer.get("session") == session
            ),
            0.0,
        )
        name = f"client {link.client} was told by node-{link.node} that its session is unknown"
        if not before:
            # Redis may have lost it; the ledger has it, and it is brought back in time.
            disturbed_s = max((f.over_s for f in self._faults if f.began_s <= at_s), default=-_EVER)
            if self._lost_since(login_s, at_s) and at_s - disturbed_s < b.after_s + b.lease_ttl_s:
                return
            yield Violation(at_s, "login_undone", session, f"{name}: it had logged in at {login_s:.2f} s")
            return
        if self._lost_since(0.0, at_s):
            return  # only its node knew it, and may have gone
        last = max(before, key=lambda one: one.asked_s)
        if not self._schedule.survives_connection:
            # A try of which nobody knows what became may have ended the one before, and prolongs nothing for certain.
            # The first one that may have had the session counts: whether those after it had it, nobody knows.
            known = max((one for one in before if one.served), key=lambda one: one.asked_s, default=None)
            tries_s = [one.asked_s for one in before if known is None or one.asked_s > known.asked_s]
            silences = known.silences if known is not None else []
            alive_s = min([at_s, *tries_s, *(began_s for began_s, _ in silences)])
            if known is not None:
                alive_s = min(alive_s, known.ended_s)
            window_s = min(b.resume_s, b.lease_s) - b.slack_s
            # Whoever asks in time is not late because the answer is, unless something was wrong.
            if at_s - alive_s > window_s and (
                link.asked_s - alive_s > window_s - b.slack_s or self._was_disturbed(link)
            ):
                return
        # Served last on one node, it is no concern of the nodes before.
        where = [last] if last.served else before
        since_s = min(one.asked_s for one in where)
        in_doubt = any(self._node_was_in_doubt(one.node, since_s, at_s) for one in where)
        if in_doubt and not self._schedule.survives_connection:
            return
        yield Violation(at_s, "session_lost", session, f"{name}, within its resume window")

    def _silence_to(self, link: _Link) -> Iterator[Violation]:
        """A node that nothing has happened to answers; clocks alone keep nobody waiting."""
        if link.code != "TimeoutError" or link.answered_s > self._end_s:
            return
        if not self._was_disturbed(link):
            yield Violation(
                link.answered_s,
                "not_let_in",
                f"client {link.client}",
                f"node-{link.node} did not answer for {link.answered_s - link.asked_s:.2f} s, and nothing was wrong",
            )

    def _two_owners(self) -> Iterator[Violation]:
        b = self._bounds
        for slot, links in self._by_slot.items():
            served = sorted((one for one in links if one.served), key=lambda one: one.answered_s)
            for n, older in enumerate(served):
                for newer in served[n + 1 :]:
                    until_s = min(older.ended_s, newer.ended_s, self._end_s)
                    if until_s - self._calm([older, newer], newer.answered_s, until_s) > b.kick_s:
                        yield Violation(
                            until_s,
                            "two_owners",
                            slot,
                            f"clients {older.client} (node-{older.node}) and {newer.client} (node-{newer.node}) "
                            f"were both served until {until_s:.2f} s",
                        )

    def _calm(self, links: Sequence[_Link], since_s: float, until_s: float) -> float:
        """From when on nothing happened to anybody that matters to these connections, until a time."""
        b = self._bounds
        for fault in self._faults:
            if fault.touches(since_s - b.after_s, until_s) and KINDS[fault.kind].side != "ledger":
                since_s = max(since_s, min(fault.over_s, until_s) + b.after_s)
        for link in links:
            for began_s, over_s in link.silences:
                if began_s <= until_s:
                    since_s = max(since_s, min(over_s, until_s) + b.after_s)
        return since_s

    # -- logins and logouts ------------------------------------------------------------------------

    def _logouts(self) -> Iterator[Violation]:
        for op in self._ops.values():
            if op.what != "logout" or not (op.outcome == "ok" or op.code in _LEDGER):
                continue
            session = op.asked["session"]
            committed = op.outcome == "ok"
            for link in self._by_session[session]:
                # A login that Redis has lost is looked up again by every node; the ledger says it is over.
                lost = self._lost_since(op.asked_s, link.answered_s)
                if link.served and link.asked_s > op.answered_s and not (lost and not committed):
                    yield Violation(
                        link.answered_s,
                        "logout_undone",
                        session,
                        f"client {link.client} was let in by node-{link.node} "
                        f"{link.asked_s - op.answered_s:.2f} s after its logout was acknowledged",
                    )
                until_s = min(link.ended_s, self._end_s)
                calm_s = self._calm([link], op.answered_s, until_s)
                if link.served and link.asked_s < op.asked_s and until_s - calm_s > self._bounds.kick_s:
                    yield Violation(
                        until_s, "still_in", session, f"client {link.client} is served after its logout"
                    )
            for probe in self._probes:
                lost = not committed and self._lost_since(op.asked_s, probe.at_s)
                if probe["session"] == session and probe["outcome"] == "ok" and not lost:
                    yield Violation(
                        probe.at_s, "logout_undone", session, "its token lets in, long after its logout"
                    )

    # -- what watchers are told --------------------------------------------------------------------

    def _offlines(self) -> Iterator[Violation]:
        b = self._bounds
        for op, told in self._told.items():
            watcher = self._links[op]
            for entry in told:
                if entry["kind"] != "offline" or entry.at_s > self._end_s:
                    continue
                at_s, user = entry.at_s, entry["user"]
                links = self._stayed(user, at_s)
                if not links:
                    continue
                nodes = {watcher.node, *(one.node for one in links)}
                # What is told late is of another time.
                late = (*_ENDS, *_BLOCKS, *_STORE_IS_AWAY)
                if any(
                    self._node_was_in_doubt(node, at_s - b.after_s, at_s) for node in nodes
                ) or self._fault_of(watcher.node, late, at_s - b.slack_s, at_s):
                    continue
                yield Violation(
                    at_s,
                    "wrong_offline",
                    user,
                    f"node-{watcher.node} told that {user} is offline; client {links[-1].client} was connected "
                    f"to node-{links[-1].node} all the time",
                )

    def _stayed(self, user: str, at_s: float) -> list[_Link]:
        """The connections with which a user was there from a while before to a moment after; none: the user was not."""
        b = self._bounds
        links = sorted(
            (
                one
                for slot in self._by_slot.values()
                for one in slot
                if self._user(one) == user and one.served and one.answered_s <= at_s + b.slack_s
            ),
            key=lambda one: one.answered_s,
        )
        there: list[_Link] = []
        since_s = until_s = -_EVER
        for one in links:
            ends_s = min(one.ended_s, *(began_s for began_s, _ in one.silences), _EVER)
            wanted_s = self._ended_on_purpose(one.session, user, at_s + b.slack_s)
            purpose = wanted_s <= ends_s + b.slack_s
            ends_s = min(ends_s, wanted_s)
            if one.answered_s <= until_s + b.slack_s:  # a refresh or a take-over
                until_s = max(until_s, ends_s)
                there.append(one)
            elif ends_s > until_s:
                since_s, until_s, there = one.answered_s, ends_s, [one]
            if purpose and until_s <= ends_s:
                since_s = _EVER if until_s < at_s + b.slack_s else since_s
        was_there = since_s <= at_s - b.slack_s and until_s >= at_s + b.slack_s / 2
        return [one for one in there if one.ended_s >= at_s - b.after_s] if was_there else []

    def _reapings(self) -> Iterator[Violation]:
        owned = {
            link.answer["owner"]: link
            for link in self._links.values()
            if link.served and link.answer is not None
        }
        for entry in self._reaped:
            link = owned.get(entry["owner"])
            if link is not None and not self._may_be_reaped(link, entry.at_s):
                yield Violation(
                    entry.at_s,
                    "wrong_reaping",
                    link.session,
                    f"{entry['by']} ended a session of client {link.client} as a dead node's; node-{link.node} lived",
                )

    def _may_be_reaped(self, link: _Link, at_s: float) -> bool:
        """Whether the start of a node that served a connection may have been taken for dead at a time.

        An outage ends every lease, and excuses nothing: all nodes come back from it, and have a lease's time for that.
        """
        b = self._bounds
        if self._fault_of(link.node, _ENDS, link.asked_s, at_s):
            return True
        if not self._node_was_in_doubt(link.node, at_s - b.after_s, at_s):
            return False
        outages = [one for one in self._faults if one.kind in _STORE_IS_AWAY and one.began_s <= at_s]
        last = max(outages, key=lambda one: one.over_s, default=None)
        over_s = min(last.over_s, at_s) if last is not None else at_s
        if last is None or over_s - last.began_s < b.outage_s:
            return True
        # What it missed by itself before the end of the outage is made good with all the others.
        since_s = over_s - b.slack_s
        return any(
            one.node == link.node and one.kind in _BLOCKS and one.touches(since_s, at_s)
            for one in self._faults
        )

    # -- when everything was quiet for long --------------------------------------------------------

    def _at_rest(self, settled: Entry) -> Iterator[Violation]:
        at_s = settled.at_s
        shown = next((one for one in reversed(self._store) if one.at_s <= at_s), None)
        statuses: dict[str, str] = shown["statuses"] if shown is not None else {}
        online: list[str] = shown["online"] if shown is not None else []
        healthy = self._healthy_at(at_s)
        users: dict[str, bool] = {
            self._schedule.user_of(client): False for client in range(self._schedule.clients)
        }
        slots = {self._schedule.slot_of(client) for client in range(self._schedule.clients)}
        for slot in sorted(slots):
            here = [one for one in healthy if one.client < _WATCHER and self._slot(one) == slot]
            status = statuses.get(slot)
            if len(here) > 1:
                who = ", ".join(f"{one.client} on node-{one.node}" for one in here)
                yield Violation(
                    at_s, "two_owners", slot, f"{len(here)} connections are served: clients {who}"
                )
            elif here:
                users[self._user(here[0])] = True
                wanted = f"{here[0].session}|{here[0].answer['owner'] if here[0].answer else ''}"
                if status != wanted:
                    yield Violation(at_s, "gap", slot, f"status {status!r}; its connection is {wanted!r}")
            elif status is not None:
                yield Violation(at_s, "ghost", slot, f"status {status!r}; nobody is there")
        for user, there in users.items():
            if there and user not in online:
                yield Violation(at_s, "gap", user, "connected, and not in the online set")
            if not there and user in online:
                yield Violation(at_s, "ghost", user, "in the online set, and not connected")
        for op, told in self._told.items():
            watcher = self._links[op]
            if watcher in healthy:
                last = {entry["user"]: entry["kind"] for entry in told if entry.at_s <= at_s}
                for user, kind in last.items():
                    if (kind == "online") is not users[user]:
                        is_so = "connected" if users[user] else "gone"
                        yield Violation(
                            at_s, "wrong_belief", user, f"node-{watcher.node} told {kind}; it is {is_so}"
                        )
        served = {one.client for one in healthy}
        for client in settled["up"]:
            if client not in served:
                tries = [one for one in self._links.values() if one.client == client]
                last_s = tries[-1] if tries else None
                why = f"the last answer: {last_s.code}" if last_s is not None and last_s.code else "no answer"
                yield Violation(at_s, "not_let_in", f"client {client}", f"it has tried for long; {why}")

    def _in_the_end(self, final: Entry) -> Iterator[Violation]:
        at_s = final.at_s
        told = {
            op.answer["session"]
            for op in self._ops.values()
            if op.what == "login" and op.outcome == "ok" and op.answer
        }
        for one in final["differences"]:
            # A node that died between Redis and the ledger: nobody has the token, and the record has its TTL.
            if one["kind"] != "record_not_in_ledger" or one["subject"] in told:
                yield Violation(at_s, "inconsistent", one["subject"], f"{one['kind']}: {one['sentence']}")
        rows: dict[str, str | None] = final["rows"]
        for op in self._ops.values():
            if (
                op.what == "login"
                and op.outcome == "ok"
                and op.answer is not None
                and op.answer["session"] not in rows
            ):
                yield Violation(at_s, "login_undone", op.answer["session"], "its row is not in the ledger")
            if op.what == "logout" and op.outcome == "ok":
                session = op.asked["session"]
                if session in rows and rows[session] not in _FINAL:
                    yield Violation(
                        at_s, "logout_undone", session, f"its row in the ledger says {rows[session]!r}"
                    )
        for probe in self._probes:
            session = probe["session"]
            logins = [
                op
                for op in self._ops.values()
                if op.answer is not None and op.answer.get("session") == session
            ]
            if probe["outcome"] != "failed" or probe["code"] != "session_unknown" or not logins:
                continue
            client = logins[0].asked["client"]
            if client >= _WATCHER or self._by_session[session]:
                continue
            user, slot = self._schedule.user_of(client), self._schedule.slot_of(client)
            if self._ended_on_purpose(session, user, at_s) == _EVER and slot:
                yield Violation(
                    probe.at_s, "login_undone", session, "it never connected, and now it is unknown"
                )
