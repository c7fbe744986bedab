"""The audit's rules, one sentence each, over snapshots made by hand: what is a difference, and what is not."""

from __future__ import annotations

from typing import Any

import pytest

from harness.user_sessions.audit import (
    Difference,
    Held,
    Ledger,
    Memory,
    Row,
    Snapshot,
    Store,
    differences,
    lasting,
)

A, B = "n1.aaaaaaaa:0000000000000a", "n1.aaaaaaaa:0000000000000b"


def agreed() -> dict[str, Any]:
    """Ann is online, bob is between two pages, cyd has logged in, dan has logged out."""
    return {
        "live": [Held("s-ann", "ann", A, "n1")],
        "waiting": [Held("s-bob", "bob", B, "n1")],
        "sessions": {"s-ann": f"ann|{A}", "s-bob": f"bob|{B}", "s-cyd": "cyd|"},
        "statuses": {"ann": f"s-ann|{A}", "bob": f"s-bob|{B}"},
        "online": {"ann", "bob"},
        "lists": {"n1.aaaaaaaa": {"s-ann": f"ann|{A}", "s-bob": f"bob|{B}"}},
        "rows": {
            "s-ann": Row("s-ann", "ann", True, A, "n1", "", False),
            "s-bob": Row("s-bob", "bob", False, B, "n1", "tcp_fin", False),
            "s-cyd": Row("s-cyd", "cyd", False, "", "n1", "", False),
            "s-dan": Row("s-dan", "dan", False, B, "n1", "logout", False),
        },
        "users": {"ann"},
    }


def snapshot(parts: dict[str, Any]) -> Snapshot:
    return Snapshot(
        Memory(parts["live"], parts["waiting"]),
        Store(parts["sessions"], parts["statuses"], frozenset(parts["online"]), parts["lists"]),
        Ledger(parts["rows"], frozenset(parts["users"])),
    )


def test_what_belongs_together_is_no_difference() -> None:
    assert differences(snapshot(agreed())) == []


def change(parts: dict[str, Any], where: str, key: Any, value: Any) -> None:
    if value is None:
        del parts[where][key]
    else:
        parts[where][key] = value


ROW = Row("s", "eve", True, A, "n1", "", False)
# What is changed (place, key, new value or None), and which differences that makes: (kind, subject).
CASES: dict[str, tuple[list[tuple[str, Any, Any]], set[tuple[str, str]]]] = {
    "the session record of a connection is gone": (
        [("sessions", "s-ann", None)],
        {("live_without_record", "s-ann"), ("status_of_nobody", "ann"), ("list_of_nobody", "s-ann")},
    ),
    "and names another connection": (
        [("sessions", "s-ann", f"ann|{B}")],
        {
            ("live_without_record", "s-ann"),
            ("status_of_nobody", "ann"),
            ("list_of_nobody", "s-ann"),
            ("list_missing", "s-ann"),
        },
    ),
    "the status of a connection is gone": (
        [("statuses", "ann", None)],
        {("live_without_status", "s-ann"), ("online_nobody", "ann")},
    ),
    "the status of a waiting session is gone": (
        [("statuses", "bob", None)],
        {("record_without_status", "s-bob"), ("online_nobody", "bob")},
    ),
    "a connected session that no node has": ([("waiting", 0, None)], {("record_of_nobody", "s-bob")}),
    "a status without a session": (
        [("statuses", "eve", f"s-eve|{A}"), ("online", "eve", True)],
        {("status_of_nobody", "eve")},
    ),
    "a user online without a status": ([("online", "eve", True)], {("online_nobody", "eve")}),
    "a user with a status is not online": ([("online", "ann", None)], {("online_missing", "ann")}),
    "a node's list lacks a session": (
        [("lists", "n1.aaaaaaaa", {"s-bob": f"bob|{B}"})],
        {("list_missing", "s-ann")},
    ),
    "a ghost row": ([("rows", "s", ROW)], {("ledger_online_nobody", "s"), ("user_not_online", "eve")}),
    "a user whom the ledger calls online without a row": (
        [("users", "eve", True)],
        {("user_online_nobody", "eve")},
    ),
    "a user whom the ledger does not call online": ([("users", "ann", None)], {("user_not_online", "ann")}),
    "a connection without a row": (
        [("rows", "s-ann", None), ("users", "ann", None)],
        {("live_not_in_ledger", "s-ann"), ("record_not_in_ledger", "s-ann")},
    ),
    "a connection whose row is offline": (
        [("rows", "s-ann", Row("s-ann", "ann", False, A, "n1", "ttl", False)), ("users", "ann", None)],
        {("live_but_offline", "s-ann")},
    ),
    "a connection whose row names another": (
        [("rows", "s-ann", Row("s-ann", "ann", True, B, "n1", "", False))],
        {("live_but_offline", "s-ann")},
    ),
    "a login that Redis has forgotten": ([("sessions", "s-cyd", None)], {("login_without_record", "s-cyd")}),
    "the same, but its life is over": (
        [("sessions", "s-cyd", None), ("rows", "s-cyd", Row("s-cyd", "cyd", False, "", "n1", "", True))],
        set(),
    ),
    "a record that the ledger has never heard of": (
        [("rows", "s-cyd", None)],
        {("record_not_in_ledger", "s-cyd")},
    ),
    "a record of a session that has logged out": (
        [("sessions", "s-dan", "dan|")],
        {("record_of_ended_session", "s-dan")},
    ),
    "one session, two connections": (
        [("live", slice(1, 1), [Held("s-ann", "ann", A, "n2")])],
        {("live_twice", "s-ann")},
    ),
    "devices: each has its status, the user is online once": (
        [
            ("sessions", "s-ann", f"ann/web|{A}"),
            ("statuses", "ann", None),
            ("statuses", "ann/web", f"s-ann|{A}"),
            ("lists", "n1.aaaaaaaa", {"s-ann": f"ann/web|{A}", "s-bob": f"bob|{B}"}),
        ],
        set(),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_a_difference(name: str) -> None:
    changes, expected = CASES[name]
    parts = agreed()
    for where, key, value in changes:
        if where in ("online", "users"):
            (parts[where].add if value else parts[where].discard)(key)
        else:
            change(parts, where, key, value)
    assert {(one.kind, one.subject) for one in differences(snapshot(parts))} == expected


def test_what_is_not_looked_at_differs_from_nothing() -> None:
    whole = snapshot(agreed())
    assert differences(whole._replace(memory=None)) == []
    assert differences(whole._replace(store=None)) == []
    assert differences(whole._replace(ledger=None)) == []


def test_only_what_differs_every_time_lasts() -> None:
    """In passing, on its way, and there to stay; told as it was seen last."""
    stays, stays_now = Difference("k", "s", "first"), Difference("k", "s", "last")
    passing = Difference("k", "t", "")
    assert lasting([[stays, passing], [stays], [stays_now, passing]]) == [stays_now]
    assert [one.sentence for one in lasting([[stays], [stays_now]])] == ["last"]
    assert lasting([]) == []
