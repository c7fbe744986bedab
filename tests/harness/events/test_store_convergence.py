"""When the store agrees again after an incident: a table of courses, by hand."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from harness.events.store_convergence import Records, StoreConvergence
from reference_server.events import Event, EventKind, Source
from scenarios.faults import INCIDENTS

K = EventKind
GONE: Records = (None, None)


def client(
    time_s: float, kind: EventKind, session: str = "s0", connection: str = "c0", node: str = ""
) -> Event:
    return Event(time_s, Source.CLIENT, kind, session, connection, node, "", {"user_id": f"u-{session}"})


def incident(time_s: float, kind: str, node: str = "", over: bool = False) -> Event:
    what = K.INCIDENT_ENDED if over else K.INCIDENT_STARTED
    does = INCIDENTS[kind].drawn
    detail = {
        "incident_id": kind,
        "kind": kind,
        "cuts_connections": does.cuts_connections,
        "stops_loop": does.stops_loop,
    }
    return Event(time_s, Source.HARNESS, what, node=node, detail=detail)


def held(session: str = "s0", connection: str = "c0") -> Records:
    return connection, f"{session}|{connection}"


def course(*events: Event) -> StoreConvergence:
    found = StoreConvergence()
    for event in events:
        found.take(event)
    return found


def seen(of: StoreConvergence, records: Mapping[str, Records], now_s: float = 12.0) -> list[EventKind]:
    asked = of.questions()
    found = {one: records.get(one, GONE) for one in asked}
    return [event.kind for event in of.answer(found, now_s - 0.05, now_s)]


ON_1 = client(1.0, K.CONNECTED, node="node-1")
CRASH = incident(10.0, "node_crash", "node-1")


@pytest.mark.parametrize(
    ("events", "records", "expected"),
    [
        # A crash: the record names the dead connection, whatever the client says.
        ([ON_1, CRASH], {"s0": held()}, []),
        ([ON_1, CRASH, client(10.1, K.DISCONNECTED)], {"s0": held()}, []),
        # Back at another node: the record is the new connection's. No ghost, and it agrees.
        (
            [ON_1, CRASH, client(11.0, K.CONNECTED, connection="c1", node="node-2")],
            {"s0": held("s0", "c1")},
            [K.GHOSTS_GONE, K.STORE_AGREES],
        ),
        # The record is another's before the client has said so: no ghost, and not agreed yet.
        ([ON_1, CRASH], {"s0": held("s0", "c1")}, [K.GHOSTS_GONE]),
        # Reaped while its client is away: no ghost, and right: nobody is there.
        ([ON_1, CRASH, client(10.1, K.DISCONNECTED)], {}, [K.GHOSTS_GONE, K.STORE_AGREES]),
        # The session record went, the status stayed: still a ghost.
        ([ON_1, CRASH], {"s0": (None, "s0|c0")}, []),
        # A status of another session of the user is none of ours.
        (
            [ON_1, CRASH, client(10.1, K.DISCONNECTED)],
            {"s0": (None, "s9|c9")},
            [K.GHOSTS_GONE, K.STORE_AGREES],
        ),
        # A client that died before the crash: its record has to go.
        ([ON_1, client(5.0, K.FAULT_INJECTED), CRASH], {"s0": held()}, []),
        ([ON_1, client(5.0, K.FAULT_INJECTED), CRASH], {}, [K.GHOSTS_GONE, K.STORE_AGREES]),
        # One that dies after it is another's business.
        ([ON_1, CRASH, client(11.0, K.FAULT_INJECTED)], {"s0": held()}, [K.GHOSTS_GONE, K.STORE_AGREES]),
        # Another node's client is not hit.
        ([client(1.0, K.CONNECTED, node="node-2"), CRASH], {"s0": held()}, [K.GHOSTS_GONE, K.STORE_AGREES]),
        # Clients write with a delay: what they say of the time before counts.
        ([CRASH, ON_1], {"s0": held()}, []),
        # A flush: the living connection's record has to be back, both halves of it.
        ([ON_1, incident(10.0, "store_flush")], {}, []),
        ([ON_1, incident(10.0, "store_flush")], {"s0": ("c0", None)}, []),
        ([ON_1, incident(10.0, "store_flush")], {"s0": held()}, [K.STORE_AGREES]),
        # Whoever was told "session unknown" has left it.
        ([ON_1, incident(10.0, "store_flush"), client(11.0, K.SESSION_UNKNOWN)], {}, [K.STORE_AGREES]),
        # A stall is judged when it is over.
        ([ON_1, incident(10.0, "gateway_stall", "node-1")], {"s0": held()}, []),
        (
            [
                ON_1,
                incident(10.0, "gateway_stall", "node-1"),
                incident(11.0, "gateway_stall", "node-1", over=True),
            ],
            {"s0": held()},
            [K.STORE_AGREES],
        ),
    ],
)
def test_one_look(events: list[Event], records: dict[str, Records], expected: list[EventKind]) -> None:
    assert seen(course(*events), records) == expected


def test_each_end_is_told_once_with_the_last_look_that_found_something() -> None:
    of = course(ON_1, CRASH)
    assert seen(of, {"s0": held()}, 11.0) == []
    (gone,) = of.answer({"s0": held("s0", "c1")}, 12.0, 12.05)
    assert gone.kind is K.GHOSTS_GONE and gone.time_s == 12.05
    assert gone.detail == {"incident_id": "node_crash", "sessions": 1, "previous_poll_s": 10.95}
    assert of.is_open
    of.take(client(12.5, K.CONNECTED, connection="c1", node="node-2"))
    assert seen(of, {"s0": held("s0", "c1")}, 13.0) == [K.STORE_AGREES]
    assert not of.is_open and not of.questions()


def test_sessions_that_were_left_are_forgotten_but_for_those_that_an_open_incident_has_hit() -> None:
    def again(n: int) -> list[Event]:
        user, session = {"user_id": "u"}, f"s{n}"
        return [
            Event(n, Source.CLIENT, kind, session, f"c{n}", "node-1", "", user)
            for kind in (K.LOGGED_IN, K.CONNECTED, K.DISCONNECTED)
        ]

    of = course(*(event for n in range(5) for event in again(n)), *again(5)[:2], CRASH)
    assert list(of.questions()) == ["s5"]
    for event in again(20):
        of.take(event)
    assert list(of.questions()) == ["s5"]
    assert seen(of, {"s5": ("c5", "s5|c5")}) == []
    assert seen(of, {}) == [K.GHOSTS_GONE, K.STORE_AGREES]
    of.take(client(21.0, K.FAULT_INJECTED, "s5"))  # its client's line came late
    for event in again(30)[:2]:
        of.take(event)
    of.take(incident(40.0, "store_flush"))
    assert list(of.questions()) == ["s30"]
    assert len(of._sessions) == 1
