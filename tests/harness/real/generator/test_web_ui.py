"""The live table and curve: events in any order, counted once."""

from __future__ import annotations

import itertools

import pytest

from harness.real.generator.live_view import COLUMNS, LiveView
from reference_server.events import Event, EventKind, Source
from scenarios.clock import RunClock


def client(time_s: float, kind: EventKind, session: str, **detail: object) -> Event:
    return Event(time_s, Source.CLIENT, kind, session, detail=detail)


CONNECTED = client(1.0, EventKind.CONNECTED, "a", client=1)
CRASH = client(2.0, EventKind.FAULT_INJECTED, "a", fault="host_crash")
SUSPECTED = Event(5.0, Source.GATEWAY, EventKind.SUSPECTED, "a", cause="heartbeat")
CLEARED = Event(6.0, Source.STORE, EventKind.STORE_CLEARED, "a")
SAMPLE = Event(3.0, Source.STORE, EventKind.STORE_SAMPLE, detail={"sessions": 7})


def count(view: LiveView, what: str, fault: str = "") -> object:
    found = [row["count"] for row in view.rows() if (row["what"], row["fault"]) == (what, fault)]
    assert len(found) == 1, view.rows()
    return found[0]


def test_a_dead_client_is_a_ghost_until_the_store_forgets_it() -> None:
    view = LiveView()
    course = [(CONNECTED, 1, None), (SAMPLE, 1, 0), (CRASH, 0, 1), (SUSPECTED, 0, 1), (CLEARED, 0, 0)]
    for event, live, ghosts in course:
        view.take(event)
        point = view.mark(event.time_s)
        assert (point.live, point.ghosts) == (live, ghosts), event


@pytest.mark.parametrize("order", list(itertools.permutations([CRASH, SUSPECTED, SAMPLE])))
def test_the_order_of_the_logs_does_not_matter(order: tuple[Event, ...]) -> None:
    view = LiveView(clock=RunClock(10))
    for event in (CONNECTED, *order):
        view.take(event)
    detected = [row for row in view.rows() if row["what"] == "detected"]
    assert detected == [
        {"what": "detected", "fault": "host_crash", "cause": "heartbeat", "count": 1, "median_s": 30.0}
    ]


def test_an_end_before_the_fault_is_not_its_detection() -> None:
    view = LiveView()
    view.take(Event(1.5, Source.GATEWAY, EventKind.SUSPECTED, "a", cause="close_frame"))
    view.take(CRASH)
    assert not [row for row in view.rows() if row["what"] == "detected"]


def test_who_recovers_is_live_and_no_ghost() -> None:
    view = LiveView()
    for event in (CONNECTED, SAMPLE, CRASH, client(4.0, EventKind.FAULT_RECOVERED, "a")):
        view.take(event)
    assert (count(view, "live sessions"), count(view, "ghosts", "host_crash")) == (1, 0)


def test_without_a_store_watch_nobody_says_that_there_are_no_ghosts() -> None:
    view = LiveView()
    view.take(CRASH)
    assert count(view, "ghosts") == "no store watch"
    assert view.mark(3.0).ghosts is None


def test_every_row_has_every_column() -> None:
    view = LiveView()
    for event in (CONNECTED, CRASH, SUSPECTED, SAMPLE):
        view.take(event)
    assert {tuple(row) for row in view.rows()} == {tuple(key for key, _ in COLUMNS)}
