"""The checker on histories written by hand: what must not be, what may be, and what is excused."""

from __future__ import annotations

from typing import Any

import pytest

from harness.torture.checker import BOUNDS, check, is_sound
from harness.torture.history import Entry
from harness.torture.schedule import Schedule

ALONE = Schedule("1.1", ())  # one connection a user
DEVICES = Schedule("1.1", (), one_connection_per="device")
SURVIVES = Schedule("1.1", (), survives_connection=True)
W = 100  # the watcher of node-1


class Told:
    """A history in the making. Client 4 and above have users of their own, 0 and 1 are two devices of user-0."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._ops = 0

    def note(self, at_s: float, what: str, **fields: Any) -> Told:
        self.entries.append(Entry(at_s, what, fields))
        return self

    def _op(self, at_s: float, what: str, outcome: str, asked: dict[str, Any], **answer: Any) -> int:
        self._ops += 1
        self.note(at_s, what, op=self._ops, **asked)
        self.note(at_s + 0.01, what, op=self._ops, outcome=outcome, **answer)
        return self._ops

    def login(self, at_s: float, client: int, session: str, outcome: str = "ok") -> int:
        return self._op(at_s, "login", outcome, {"client": client, "node": 1}, session=session)

    def connect(
        self, at_s: float, client: int, session: str, node: int = 1, outcome: str = "ok", code: str = ""
    ) -> int:
        asked = {"client": client, "session": session, "node": node}
        return self._op(at_s, "connect", outcome, asked, owner=f"o{self._ops + 1}", resumed=False, code=code)

    def logout(self, at_s: float, session: str, outcome: str = "ok", code: str = "") -> int:
        return self._op(at_s, "logout", outcome, {"client": 0, "session": session, "node": 1}, code=code)

    def kick(self, at_s: float, user: str) -> int:
        return self._op(at_s, "kick", "ok", {"user": user, "node": 1}, code={"sessions": 1})

    def ended(self, at_s: float, op: int, by: str = "peer", code: int = 1006) -> Told:
        return self.note(at_s, "ended", op=op, by=by, code=code)

    def fault(self, at_s: float, kind: str, node: int = 0, lasts_s: float = 0.0) -> Told:
        self.note(at_s, "fault", kind=kind, node=node)
        return self.note(at_s + lasts_s, "over", kind=kind, node=node)

    def told(self, at_s: float, op: int, kind: str, user: str) -> Told:
        return self.note(at_s, "told", op=op, kind=kind, user=user, session="")

    def reaped(self, at_s: float, op: int, session: str = "s") -> Told:
        return self.note(at_s, "reaped", session=session, owner=f"o{op}", by="node-1")

    def at_rest(self, at_s: float, statuses: dict[str, str] | None = None, up: tuple[int, ...] = ()) -> Told:
        users = sorted({slot.partition("/")[0] for slot in statuses or {}})
        self.note(at_s, "store", statuses=statuses or {}, online=users)
        return self.note(at_s, "settled", up=list(up))

    def final(self, at_s: float, rows: dict[str, str | None] | None = None, **fields: Any) -> Told:
        return self.note(at_s, "final", differences=[], rows=rows or {}, lag_s=0.1, **fields)

    def kinds(self, schedule: Schedule = ALONE) -> list[str]:
        """What is wrong; entries are in order of time, as they would be."""
        return [one.kind for one in check(schedule, sorted(self.entries, key=lambda entry: entry.at_s))]


def online(client: int = 4, session: str = "s", node: int = 1) -> tuple[Told, int]:
    """One client logged in and connected at 1 s."""
    told = Told()
    told.login(0.5, client, session)
    return told, told.connect(1.0, client, session, node)


def test_a_quiet_history_is_good() -> None:
    told, op = online()
    told.at_rest(10.0, {"user-4": f"s|o{op}"}, up=(4,)).final(11.0, {"s": None})
    assert told.kinds() == []


# -- thrown out ------------------------------------------------------------------------------------

NODE_FAULTS: list[tuple[str, int, float, float, bool]] = [
    # kind, node, began, lasted; the connection on node-1 ends at 5 s: is that the gateway's fault?
    ("crash", 1, 4.9, 2.0, False),
    ("drain", 1, 4.0, 3.0, False),
    ("host", 1, 2.0, 1.5, False),
    ("crash", 2, 4.9, 2.0, True),
    ("pause", 1, 2.0, 3.0, True),
    ("partition", 1, 2.0, 3.0, True),
    ("flush", 0, 4.9, 0.0, True),
    ("restart", 0, 4.0, 2.0, True),
    ("crash", 1, 1.5, 1.0, True),
]


@pytest.mark.parametrize(("kind", "node", "began_s", "lasts_s", "wrong"), NODE_FAULTS)
def test_only_what_ends_a_node_may_end_the_connections_of_its_healthy_clients(
    kind: str, node: int, began_s: float, lasts_s: float, wrong: bool
) -> None:
    told, op = online()
    told.fault(began_s, kind, node, lasts_s).ended(5.0, op)
    assert told.kinds() == ["thrown_out"] * wrong


@pytest.mark.parametrize(("cut_s", "wrong"), [(0.4, True), (1.1, False), (3.0, False)])
def test_a_cut_is_an_excuse_if_until_tcps_next_try_it_outlasts_the_patience(
    cut_s: float, wrong: bool
) -> None:
    told, op = online()
    told.note(2.0, "silent", op=op).note(2.0 + cut_s, "heard", op=op).ended(6.0, op)
    assert told.kinds() == ["thrown_out"] * wrong


@pytest.mark.parametrize("code", [1000, 4410])
def test_who_was_logged_out_or_kicked_is_not_thrown_out_but_somebody_must_have_wanted_it(code: int) -> None:
    told, op = online()
    told.ended(5.0, op, code=code)
    assert told.kinds() == ["thrown_out"]
    told.kick(4.9, "user-4")
    assert told.kinds() == []


def test_a_take_over_needs_somebody_who_takes_over_and_who_is_newer() -> None:
    told, op = online()
    told.ended(5.0, op, code=4409)
    assert told.kinds() == ["thrown_out"]
    told.ended(0.9, told.connect(0.7, 4, "before"), by="self", code=1000)
    assert told.kinds() == ["older_won"]
    told.connect(4.9, 4, "after", node=2, outcome="unknown")
    assert told.kinds() == []


@pytest.mark.parametrize(
    ("differ", "lost", "wrong"), [(True, True, False), (True, False, True), (False, True, True)]
)
def test_of_two_connections_the_older_may_win_where_clocks_differ_and_redis_was_flushed_between(
    differ: bool, lost: bool, wrong: bool
) -> None:
    told, op = online()
    told.ended(0.9, told.connect(0.7, 4, "before"), by="self", code=1000)
    told.ended(5.0, op, code=4409)
    if lost:
        told.fault(3.0, "flush")
    skewed = Schedule("1.1", (), clocks_s=(0.0, 5.0, 0.0) if differ else ())
    assert told.kinds(skewed) == ["older_won"] * wrong


# -- sessions --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("away_s", "wrong"), [(0.4, True), (3.0, False)])
def test_a_session_waits_for_its_resume_window(away_s: float, wrong: bool) -> None:
    told, op = online()
    told.ended(3.0, op, by="self", code=1000)
    told.connect(3.0 + away_s, 4, "s", 2, "failed", "session_unknown")
    assert told.kinds() == ["session_lost"] * wrong


@pytest.mark.parametrize(
    ("away_s", "fault", "wrong"),
    [(0.4, "", True), (0.4, "clock", True), (0.4, "pause", False), (0.4, "restart", False), (0.8, "", False)],
)
def test_whoever_asks_in_time_is_not_late_because_the_answer_is(
    away_s: float, fault: str, wrong: bool
) -> None:
    told, op = online()
    told.ended(3.0, op, by="self", code=1000)
    told.note(3.0 + away_s, "connect", op=9, client=4, session="s", node=2)
    told.note(4.6, "connect", op=9, outcome="failed", code="session_unknown")
    if fault:
        told.fault(2.5, fault, 0 if fault == "restart" else 2, 1.0)
    assert told.kinds() == ["session_lost"] * wrong


@pytest.mark.parametrize(("away_s", "wrong"), [(0.4, True), (3.0, False)])
def test_a_try_whose_end_nobody_knows_prolongs_nothing(away_s: float, wrong: bool) -> None:
    told, op = online()
    told.ended(3.0, op, by="self", code=1000)
    told.connect(2.9 + away_s, 4, "s", 3, "unknown", "store_unavailable")
    told.connect(3.0 + away_s, 4, "s", 2, "failed", "session_unknown")
    assert told.kinds() == ["session_lost"] * wrong


@pytest.mark.parametrize(("first_s", "wrong"), [(4.5, True), (3.0, False)])
def test_of_tries_whose_end_nobody_knows_the_first_may_have_been_the_only_one(
    first_s: float, wrong: bool
) -> None:
    told = Told()
    told.login(1.0, 4, "s")
    told.connect(first_s, 4, "s", 1, "unknown", "store_unavailable")
    told.connect(4.7, 4, "s", 3, "unknown", "store_unavailable")
    told.connect(4.9, 4, "s", 2, "failed", "session_unknown")
    assert told.kinds() == ["session_lost"] * wrong


def test_where_sessions_survive_their_connections_it_waits_for_ever() -> None:
    told, op = online()
    told.ended(3.0, op, by="self", code=1000)
    told.connect(9.0, 4, "s", 2, "failed", "session_unknown")
    assert told.kinds(SURVIVES) == ["session_lost"]


@pytest.mark.parametrize(
    ("kind", "node", "lasts_s", "wrong"),
    [
        ("partition", 1, 3.0, False),  # its lease was over: its peers have ended the session
        ("partition", 1, 0.3, True),
        ("partition", 2, 3.0, True),
        ("store_pause", 0, 3.0, True),  # then nobody reaps
        ("flush", 0, 0.0, False),
    ],
)
def test_a_session_is_lost_only_with_the_lease_of_its_node_or_with_redis(
    kind: str, node: int, lasts_s: float, wrong: bool
) -> None:
    told, op = online()
    told.fault(2.0, kind, node, lasts_s).ended(5.1, op, by="self", code=1000)
    told.connect(5.3, 4, "s", 2, "failed", "session_unknown")
    assert told.kinds() == ["session_lost"] * wrong


@pytest.mark.parametrize("by", ["logout", "newer"])
def test_a_session_that_was_ended_may_be_unknown(by: str) -> None:
    told, op = online()
    if by == "logout":
        told.logout(2.0, "s", "unknown")
        told.ended(2.1, op, code=1000)
    else:
        told.connect(2.0, 4, "other", 2)
        told.ended(2.1, op, code=4409)
    told.connect(2.3, 4, "s", 2, "failed", "session_unknown")
    assert told.kinds() == []


@pytest.mark.parametrize(
    ("flushed", "tried_s", "wrong"), [(False, 2.0, True), (True, 2.0, False), (True, 12.0, True)]
)
def test_a_login_outlives_redis_but_not_at_once(flushed: bool, tried_s: float, wrong: bool) -> None:
    told = Told()
    told.login(1.0, 4, "s")
    if flushed:
        told.fault(1.5, "flush")
    told.connect(tried_s, 4, "s", 1, "failed", "session_unknown")
    assert told.kinds() == ["login_undone"] * wrong


def test_what_was_acknowledged_is_in_the_ledger() -> None:
    told = Told()
    told.login(1.0, 4, "s")
    told.login(1.0, 5, "t")
    told.login(1.0, 6, "never", "unknown")
    told.logout(2.0, "t")
    assert Told.kinds(told.final(9.0, {"s": None, "t": "logout"})) == []
    told.entries.pop()
    assert Told.kinds(told.final(9.0, {"t": "heartbeat"})) == ["login_undone", "logout_undone"]


def test_a_token_does_not_come_back_from_a_logout() -> None:
    told, op = online()
    told.logout(2.0, "s")
    told.ended(2.05, op, code=1000)
    told.connect(3.0, 4, "s", 2)
    assert told.kinds() == ["logout_undone"]


def test_a_logout_that_only_redis_had_may_be_lost_with_redis() -> None:
    def history(code: str, outcome: str) -> Told:
        told, op = online()
        told.logout(2.0, "s", outcome, code)
        told.ended(2.05, op, code=1000).fault(2.5, "flush").final(20.0, {"s": "logout"})
        return told.note(21.0, "probe", session="s", outcome="ok", code="")

    assert history("ledger_unavailable", "failed").kinds() == []
    assert history("", "ok").kinds() == ["logout_undone"]


def test_who_logged_out_is_served_no_longer() -> None:
    told, op = online()
    told.logout(2.0, "s")
    told.ended(2.3, op, code=1000)
    assert told.kinds() == []
    late, op = online()
    late.logout(2.0, "s")
    late.ended(6.0, op, code=1000)
    assert late.kinds() == ["still_in"]


# -- owners, ghosts, gaps --------------------------------------------------------------------------


@pytest.mark.parametrize(("schedule", "wrong"), [(ALONE, True), (DEVICES, False)])
def test_two_devices_are_two_owners_only_where_a_user_has_one_connection(
    schedule: Schedule, wrong: bool
) -> None:
    told = Told()
    told.connect(1.0, 0, "s", 1)
    older = told.connect(2.0, 1, "t", 2)
    told.ended(6.0, older, by="self", code=1000)
    assert told.kinds(schedule) == ["two_owners"] * wrong


def test_two_owners_for_a_moment_or_beside_a_fault_are_none() -> None:
    told, op = online()
    told.connect(2.0, 4, "t", 2)
    told.ended(2.5, op, code=4409)
    assert told.kinds() == []
    beside, op = online()
    beside.fault(1.5, "partition", 2, 3.0)
    beside.connect(2.0, 4, "t", 2)
    beside.ended(6.0, op, code=4409)
    assert beside.kinds() == []


@pytest.mark.parametrize(
    ("statuses", "wrong"),
    [
        ({"user-4": "s|o2"}, []),
        ({}, ["gap", "gap"]),  # no status, and not in the online set
        ({"user-4": "s|another"}, ["gap"]),
        ({"user-4": "s|o2", "user-7": "t|o9"}, ["ghost", "ghost"]),
    ],
)
def test_at_rest_redis_shows_who_is_there_and_nobody_else(statuses: dict[str, str], wrong: list[str]) -> None:
    told, _ = online()
    assert told.at_rest(20.0, statuses).kinds() == wrong


def test_who_fell_silent_is_not_there() -> None:
    told, op = online()
    told.note(2.0, "silent", op=op)
    assert told.at_rest(20.0, {"user-4": f"s|o{op}"}).kinds() == ["ghost", "ghost"]


def test_who_wants_in_gets_in_once_all_is_well() -> None:
    told = Told()
    told.connect(19.0, 4, "s", 1, "failed", "too_late")
    assert told.at_rest(20.0, up=(4,)).kinds() == ["not_let_in"]


@pytest.mark.parametrize(
    ("kind", "node", "at_s", "wrong"),
    [
        ("", 0, 0.0, True),
        ("clock", 2, 4.0, True),  # time runs differently, and nobody has to wait for that
        ("pause", 2, 4.0, False),
        ("pause", 1, 4.0, True),
        ("store_pause", 0, 6.0, False),
        ("locked", 0, 4.0, False),
        ("crash", 2, 1.0, True),  # all is well again
    ],
)
def test_whoever_asks_while_nothing_is_wrong_has_an_answer(
    kind: str, node: int, at_s: float, wrong: bool
) -> None:
    told = Told()
    told.note(5.0, "connect", op=1, client=4, session="s", node=2)
    told.note(7.5, "connect", op=1, outcome="unknown", code="TimeoutError")
    if kind:
        told.fault(at_s, kind, node, 0.5)
    told.final(9.0)
    assert told.kinds() == ["not_let_in"] * wrong


# -- presence --------------------------------------------------------------------------------------


def watched(client: int = 4) -> tuple[Told, int, int]:
    told = Told()
    watcher = told.connect(0.5, W, "w")
    return told, watcher, told.connect(1.0, client, "s", 2)


def test_offline_is_told_of_those_who_went() -> None:
    told, watcher, _ = watched()
    told.told(4.0, watcher, "offline", "user-4")
    assert told.kinds() == ["wrong_offline"]
    gone, watcher, op = watched()
    gone.ended(3.9, op, by="self", code=1000).told(4.0, watcher, "offline", "user-4")
    assert gone.kinds() == []


@pytest.mark.parametrize("how", ["refresh", "take_over", "other_device"])
def test_who_comes_back_in_time_or_is_there_otherwise_has_stayed(how: str) -> None:
    told, watcher, op = watched(client=0)
    told.ended(3.0, op, by="self", code=1000)
    if how == "other_device":
        told.connect(1.5, 1, "t", 1)
    else:
        told.connect(3.2, 0, "s" if how == "refresh" else "t", 1)
    told.told(4.0, watcher, "offline", "user-0")
    assert told.kinds(DEVICES) == ["wrong_offline"]


@pytest.mark.parametrize("how", ["kick", "logout"])
def test_who_is_logged_out_and_logs_in_again_was_away(how: str) -> None:
    told, watcher, op = watched()
    if how == "kick":
        told.kick(3.9, "user-4")
    else:
        told.logout(3.9, "s")
    told.ended(4.0, op, code=4410 if how == "kick" else 1000).told(4.0, watcher, "offline", "user-4")
    told.connect(4.2, 4, "t", 2)
    assert told.kinds() == []


@pytest.mark.parametrize(
    ("kind", "node", "lasts_s", "wrong"),
    [("partition", 2, 2.5, False), ("partition", 2, 0.3, True), ("partition", 3, 2.5, True)],
)
def test_peers_may_take_a_node_for_dead_that_cannot_renew_its_lease(
    kind: str, node: int, lasts_s: float, wrong: bool
) -> None:
    told, watcher, _ = watched()
    told.fault(2.0, kind, node, lasts_s).told(4.3, watcher, "offline", "user-4")
    assert told.kinds() == ["wrong_offline"] * wrong


LEASES: list[tuple[tuple[tuple[str, int, float, float], ...], bool]] = [
    # faults: kind, node, began, lasted; peers end a session of node-2 as a dead node's at 7 s: is that wrong?
    ((), True),
    ((("crash", 2, 4.0, 0.5),), False),
    (
        (("crash", 2, 1.5, 0.2), ("store_pause", 0, 2.0, 3.0)),
        False,
    ),  # an outage puts off the reaping of the dead
    ((("crash", 1, 4.0, 0.5),), True),
    ((("crash", 2, 0.2, 0.5),), True),  # it was the start before
    ((("partition", 2, 4.0, 2.5),), False),
    ((("pause", 2, 6.0, 0.3),), True),
    ((("restart", 0, 4.0, 2.5),), True),  # all leases were over, and nobody was dead
    (
        (("partition", 2, 1.2, 2.0), ("restart", 0, 3.0, 3.5)),
        True,
    ),  # and so was that of one that came back before
    ((("restart", 0, 2.0, 2.0), ("partition", 2, 3.5, 3.0)), False),  # it came back too late
    ((("restart", 0, 3.0, 3.5), ("pause", 2, 4.0, 1.5)), True),
    ((("restart", 0, 4.0, 3.4), ("pause", 2, 3.0, 2.0)), True),  # for the first node Redis is back already
    ((("restart", 0, 6.8, 3.0), ("partition", 2, 4.0, 2.5)), False),  # just before the outage
    ((("store_pause", 0, 5.0, 0.5), ("partition", 2, 4.0, 2.5)), False),
    ((("flush", 0, 6.0, 0.0),), True),
]


@pytest.mark.parametrize(("faults", "wrong"), LEASES)
def test_only_a_node_that_has_died_or_missed_its_lease_by_itself_is_reaped(
    faults: tuple[tuple[str, int, float, float], ...], wrong: bool
) -> None:
    told = Told()
    op = told.connect(1.0, 4, "s", 2)
    for kind, node, began_s, lasts_s in faults:
        told.fault(began_s, kind, node, lasts_s)
    assert told.reaped(7.0, op).kinds() == ["wrong_reaping"] * wrong


def test_what_a_watcher_believes_is_so_in_the_end() -> None:
    told, watcher, op = watched()
    told.told(1.1, watcher, "online", "user-4")
    assert told.at_rest(20.0, {"user-4": f"s|o{op}"}).kinds() == []
    told, watcher, op = watched()
    told.told(1.1, watcher, "online", "user-4").ended(3.0, op, by="self", code=1000)
    assert told.at_rest(20.0).kinds() == ["wrong_belief"]


# -- the rest --------------------------------------------------------------------------------------


def test_what_the_audit_finds_is_a_violation() -> None:
    told = Told().note(
        20.0, "final", differences=[{"kind": "k", "subject": "s", "sentence": "t"}], rows={}, lag_s=0.0
    )
    assert told.kinds() == ["inconsistent"]


def test_a_login_that_was_never_acknowledged_may_have_left_a_record_of_nobody() -> None:
    left = [{"kind": "record_not_in_ledger", "subject": "s", "sentence": "t"}]
    told = Told()
    told.login(1.0, 4, "", "unknown")
    told.note(20.0, "final", differences=left, rows={}, lag_s=0.0)
    assert told.kinds() == []
    told.login(1.0, 4, "s")
    assert told.kinds() == ["inconsistent", "login_undone"]


def test_a_history_of_a_busy_machine_says_nothing() -> None:
    assert is_sound(Told().final(9.0).entries)
    late = Told().note(9.0, "final", differences=[], rows={}, lag_s=BOUNDS.patience_s)
    assert not is_sound(late.entries)
