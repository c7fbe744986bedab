"""The live table and curve: events in any order, counted once."""

from __future__ import annotations

import itertools

import pytest

from harness.live import counts
from harness.live.counts import COLUMNS, LiveCounts, counts_for_something
from reference_server.events import Event, EventKind, Source, encode
from scenarios.clock import RunClock
from scenarios.load import parse_scenario
from scenarios.plan import make_plan


def client(time_s: float, kind: EventKind, session: str, **detail: object) -> Event:
    return Event(time_s, Source.CLIENT, kind, session, detail=detail)


CONNECTED = client(1.0, EventKind.CONNECTED, "a", client=1)
CRASH = client(2.0, EventKind.FAULT_INJECTED, "a", fault="host_crash")
SUSPECTED = Event(5.0, Source.GATEWAY, EventKind.SUSPECTED, "a", cause="heartbeat")
CLEARED = Event(6.0, Source.STORE, EventKind.STORE_CLEARED, "a")
SAMPLE = Event(3.0, Source.STORE, EventKind.STORE_SAMPLE, detail={"sessions": 7})


def count(view: LiveCounts, what: str, fault: str = "") -> object:
    found = [row["count"] for row in view.rows() if (row["what"], row["fault"]) == (what, fault)]
    assert len(found) == 1, view.rows()
    return found[0]


def test_a_dead_client_is_a_ghost_until_the_store_forgets_it() -> None:
    view = LiveCounts()
    course = [(CONNECTED, 1, None), (SAMPLE, 1, 0), (CRASH, 0, 1), (SUSPECTED, 0, 1), (CLEARED, 0, 0)]
    for event, live, ghosts in course:
        view.take(event)
        point = view.mark()
        assert (point.live, point.ghosts) == (live, ghosts), event


@pytest.mark.parametrize("order", list(itertools.permutations([CRASH, SUSPECTED, SAMPLE])))
def test_the_order_of_the_logs_does_not_matter(order: tuple[Event, ...]) -> None:
    view = LiveCounts(clock=RunClock(10))
    for event in (CONNECTED, *order):
        view.take(event)
    detected = [row for row in view.rows() if row["what"] == "suspected"]
    assert detected == [
        {"what": "suspected", "fault": "host_crash", "cause": "heartbeat", "count": 1, "median_s": 30.0}
    ]


def test_an_end_before_the_fault_is_not_its_detection() -> None:
    view = LiveCounts()
    view.take(Event(1.5, Source.GATEWAY, EventKind.SUSPECTED, "a", cause="close_frame"))
    view.take(CRASH)
    assert not [row for row in view.rows() if row["what"] == "suspected"]


def test_who_recovers_is_live_and_no_ghost() -> None:
    view = LiveCounts()
    for event in (CONNECTED, SAMPLE, CRASH, client(4.0, EventKind.FAULT_RECOVERED, "a")):
        view.take(event)
    assert (count(view, "live clients"), count(view, "ghosts", "host_crash")) == (1, 0)


def test_without_a_store_watch_nobody_says_that_there_are_no_ghosts() -> None:
    view = LiveCounts()
    view.take(CRASH)
    assert count(view, "ghosts") == "no store watch"
    assert view.mark().ghosts is None


def test_every_row_has_every_column() -> None:
    view = LiveCounts()
    for event in (CONNECTED, CRASH, SUSPECTED, SAMPLE):
        view.take(event)
    assert {tuple(row) for row in view.rows()} == {tuple(key for key, _ in COLUMNS)}


LEFT = client(4.0, EventKind.DISCONNECTED, "a")
VERDICT = Event(3.9, Source.GATEWAY, EventKind.SUSPECTED, "a", cause="heartbeat")
HEARD = Event(4.1, Source.GATEWAY, EventKind.SUSPECTED, "a", cause="tcp_reset")


@pytest.mark.parametrize(
    ("course", "losses", "live"),
    [
        ((CONNECTED, LEFT), 1, 0),
        ((CONNECTED, VERDICT), 1, 0),  # its client knows nothing of it yet
        ((CONNECTED, VERDICT, LEFT), 1, 0),  # one end, two witnesses
        ((CONNECTED, LEFT, HEARD), 1, 0),
        ((CONNECTED, HEARD, LEFT), 1, 0),
        ((CONNECTED, HEARD), 0, 0),  # it left in order: a client that loses its connection says so
        ((CONNECTED, LEFT, client(5.0, EventKind.CONNECTED, "a")), 1, 1),
        ((CONNECTED, CRASH, SUSPECTED, LEFT), 0, 0),
        ((CONNECTED, SUSPECTED, CRASH), 0, 0),  # the gateway's log was read before the client's
    ],
)
def test_a_healthy_client_loses_a_connection_once(course: tuple[Event, ...], losses: int, live: int) -> None:
    view = LiveCounts()
    for event in course:
        view.take(event)
    assert (view.losses, view.live) == (losses, live)


def test_what_follows_the_end_of_the_run_is_no_part_of_it() -> None:
    view = LiveCounts()
    for event in (
        CONNECTED,
        client(4.5, EventKind.RUN_ENDED, ""),
        SUSPECTED,
        client(5.0, EventKind.DISCONNECTED, "a"),
    ):
        view.take(event)
    assert (view.live, view.losses, view.ended, view.now_s) == (1, 0, True, 4.5)


PLANNED = """
name: planned
clients: 2
duration: 100s
faults: [{kind: delayed, share: 50%, by: 1s, at: 5s}, {kind: host_crash, share: 50%, at: 5s}]
"""


def planned(kind: str, time_s: float) -> tuple[Event, LiveCounts]:
    plan = make_plan(parse_scenario(PLANNED))
    (fault,) = (one for one in plan.faults if one.fault == kind)
    detail = {"fault": kind, "fault_id": fault.fault_id}
    view = LiveCounts(faults=plan.faults, watches={7: (fault.client,), 8: (fault.client,)})
    return client(time_s, EventKind.FAULT_INJECTED, "a", **detail), view


def test_who_is_only_hampered_is_live_makes_no_ghost_and_can_be_lost() -> None:
    hampered, view = planned("delayed", 2.0)
    for event in (CONNECTED, SAMPLE, hampered):
        view.take(event)
    assert (view.live, view.ghosts, view.losses) == (1, 0, 0)
    view.take(VERDICT)
    assert (view.live, view.ghosts, view.losses, view.detected["delayed"]) == (0, 0, 1, 1)


@pytest.mark.parametrize("cause", ["close_frame", "heartbeat"])
@pytest.mark.parametrize("crash_first", [True, False])
@pytest.mark.parametrize(("bound_s", "latencies"), [(0.001, [0.0]), (0.0001, [])])
def test_an_end_that_another_clock_has_just_before_its_fault_is_its_detection(
    cause: str, crash_first: bool, bound_s: float, latencies: list[float]
) -> None:
    crash, view = planned("host_crash", 2.0)
    heard = Event(1.9995, Source.GATEWAY, EventKind.SUSPECTED, "a", cause=cause)
    view.take(client(0.0, EventKind.CLOCK, "", bound_s=bound_s))
    for event in (CONNECTED, crash, heard) if crash_first else (CONNECTED, heard, crash):
        view.take(event)
    assert view.latencies.get(("host_crash", "suspected", cause), []) == latencies
    for watcher in (7, 8):
        view.take(client(1.9996, EventKind.PEER_NOTIFIED, "a", watcher=watcher))
    assert view.latencies.get(("host_crash", "peers_notified", ""), []) == latencies
    assert view.detected["host_crash"] == len(latencies)
    if latencies:
        assert view.losses == 0


def test_every_milestone_is_counted_once_with_its_latency() -> None:
    crash, view = planned("host_crash", 2.0)
    fault_id = crash.detail["fault_id"]
    closed = Event(5.1, Source.GATEWAY, EventKind.SOCKET_CLOSED, "a", cause="heartbeat")
    told = [
        client(t, EventKind.PEER_NOTIFIED, "a", watcher=w) for t, w in ((6.0, "x"), (6.5, "x"), (7.0, "y"))
    ]
    again = [
        client(3.0, EventKind.LOGIN_REFUSED, "", fault_id=fault_id),
        client(8.0, EventKind.LOGGED_IN, "b", fault_id=fault_id),
    ]
    for event in (CONNECTED, crash, SUSPECTED, SUSPECTED, closed, CLEARED, *told, *again):
        view.take(event)
    found = {milestone: took for (_, milestone, _), took in view.latencies.items()}
    assert found == {
        "suspected": [3.0],
        "socket_closed": [pytest.approx(3.1)],
        "store_cleared": [4.0],
        "peers_notified": [5.0],  # the last of two watchers
        "locked_out": [6.0],
    }
    assert view.detected.total() == 1
    upto, sum_s = view.histograms()["host_crash", "suspected"]
    assert (dict(zip(counts.BUCKETS_S, upto, strict=False))[2.5], upto[-1], sum_s) == (0, 1, 3.0)


def test_a_line_that_is_not_read_as_json_would_have_changed_nothing() -> None:
    crash, _ = planned("host_crash", 2.0)
    lines = [Event(1.0, source, kind, "a") for source in Source for kind in EventKind]
    lines += [crash, client(3.0, EventKind.LOGGED_IN, "b", fault_id=crash.detail["fault_id"])]
    for line in lines:
        if not counts_for_something(encode(line)):
            _, view = planned("host_crash", 2.0)
            for event in (CONNECTED, SAMPLE, crash):
                view.take(event)
            before = view.rows()
            view.take(line)
            assert view.rows() == before, line


def test_a_long_run_keeps_its_beginning_and_its_end() -> None:
    view = LiveCounts()
    for second in range(5000):
        view.take(client(float(second), EventKind.RUN_STARTED, ""))
        view.mark()
    times = [point["time_s"] for point in view.points()]
    assert len(times) <= 1200
    assert (times[0], times[-1]) == (0.0, pytest.approx(5000, abs=10))
    assert len({b - a for a, b in itertools.pairwise(times)}) == 1
