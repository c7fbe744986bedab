from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from harness.measure.one_engine import Measured, measure
from harness.measure.series import at_same_phase
from reference_server.events import Event, Source
from reports.run_tables import MILESTONES, SCHEMAS, frame
from scenarios.clock import RunClock
from scenarios.faults import PlannedFault
from scenarios.plan import Plan
from tests.harness.handmade import (
    CLIENT,
    END_S,
    FAULT_AT_S,
    GATEWAY,
    STORE,
    K,
    connected,
    event,
    fault,
    frame_of_run,
    injected,
    log,
    plan,
)

RELOGIN = fault(relogin_after_s=0.0)


def run(events: list[Event], of: Plan, **changes: Any) -> Measured:
    given: dict[str, Any] = {"engine": "real", "horizon_s": END_S}
    return measure(events, of, **{**given, **changes})


def outcome(table: pd.DataFrame, milestone: str) -> tuple[Any, Any, Any]:
    (row,) = table[table["milestone"] == milestone].itertuples()
    return row.outcome, row.duration_s, row.cause


def suspected(time_s: float, cause: str = "heartbeat", connection: str = "c0", **detail: Any) -> Event:
    return event(time_s, GATEWAY, K.SUSPECTED, "s0", connection, cause, **detail)


def told(time_s: float, watcher: int, session: str = "s0") -> Event:
    return event(time_s, CLIENT, K.PEER_NOTIFIED, session, "", user_id="user-0", watcher=watcher)


def cleared(time_s: float, session: str = "s0") -> Event:
    return event(time_s, STORE, K.STORE_CLEARED, session, "", previous_poll_s=time_s - 0.05)


def recovered(time_s: float, of: PlannedFault) -> Event:
    return event(time_s, CLIENT, K.FAULT_RECOVERED, fault_id=of.fault_id)


def login(time_s: float, accepted: bool) -> Event:
    kind = K.LOGGED_IN if accepted else K.LOGIN_REFUSED
    return event(time_s, CLIENT, kind, "s0b" if accepted else "", "", fault_id=RELOGIN.fault_id)


NONE = ("not_applicable", pytest.approx(float("nan"), nan_ok=True), "")
WATCHED = END_S - FAULT_AT_S
WATCHES = {1: (0,), 2: (0, 3)}
ALL_SEEN = [
    suspected(185.0),
    event(185.5, GATEWAY, K.SOCKET_CLOSED, cause="heartbeat"),
    cleared(186.0),
    told(186.5, 1),
    told(187.5, 2),
    login(150.0, False),
    login(187.0, True),
]


@pytest.mark.parametrize(
    ("sentence", "events", "milestone", "expected"),
    [
        ("a verdict after the fault is a detection", ALL_SEEN, "suspected", ("detected", 85.0, "heartbeat")),
        ("the socket's end is its own milestone", ALL_SEEN, "socket_closed", ("detected", 85.5, "heartbeat")),
        (
            "the store's word is its own; the layer is that of the verdict before it",
            ALL_SEEN,
            "store_cleared",
            ("detected", 86.0, "heartbeat"),
        ),
        (
            "peers are told when the last watcher is",
            ALL_SEEN,
            "peers_notified",
            ("detected", 87.5, "heartbeat"),
        ),
        (
            "a user is locked out until a login is accepted",
            ALL_SEEN,
            "locked_out",
            ("detected", 87.0, "heartbeat"),
        ),
        (
            "a first login that is accepted is no lock-out",
            [login(130.0, True)],
            "locked_out",
            ("detected", 0.0, ""),
        ),
        ("no accepted login: censored", [login(130.0, False)], "locked_out", ("censored", WATCHED, "")),
        ("nothing seen: censored, watched to the run's end", [], "suspected", ("censored", WATCHED, "")),
        ("one watcher of two told: censored", [told(186.0, 1)], "peers_notified", ("censored", WATCHED, "")),
        (
            "one watcher told twice is one watcher",
            [told(186.0, 1), told(187.0, 1)],
            "peers_notified",
            ("censored", WATCHED, ""),
        ),
        (
            "told of another session of that user",
            [told(186.0, 1, "s9"), told(186.0, 2, "s9")],
            "peers_notified",
            ("censored", WATCHED, ""),
        ),
        (
            "another connection's verdict is not this fault's",
            [suspected(150.0, "close_frame", "c9")],
            "suspected",
            ("censored", WATCHED, ""),
        ),
        (
            "a verdict on the session as a whole counts",
            [suspected(150.0, "sweep", "")],
            "suspected",
            ("detected", 50.0, "sweep"),
        ),
        (
            "the first verdict counts",
            [suspected(190.0, "sweep"), suspected(170.0)],
            "suspected",
            ("detected", 70.0, "heartbeat"),
        ),
        (
            "a recovery first: competing, with its time",
            [recovered(120.0, RELOGIN), suspected(185.0)],
            "suspected",
            ("recovered", 20.0, ""),
        ),
        (
            "a recovery after the verdict leaves the detection",
            [suspected(170.0), recovered(171.0, RELOGIN)],
            "suspected",
            ("detected", 70.0, "heartbeat"),
        ),
        (
            "and its store is never cleared",
            [suspected(170.0), recovered(171.0, RELOGIN)],
            "store_cleared",
            ("recovered", 71.0, ""),
        ),
        (
            "verdict and recovery at once: the verdict stands",
            [recovered(170.0, RELOGIN), suspected(170.0)],
            "suspected",
            ("detected", 70.0, "heartbeat"),
        ),
        (
            "the fault and the verdict at once: detected",
            [suspected(100.0, "tcp_fin")],
            "suspected",
            ("detected", 0.0, "tcp_fin"),
        ),
        (
            "given up before the fault: there is nothing left to detect",
            [suspected(99.0), suspected(150.0)],
            "suspected",
            NONE,
        ),
        (
            "what is logged after the end is not part of the run",
            [suspected(301.0, "drain")],
            "suspected",
            ("censored", WATCHED, ""),
        ),
        (
            "a store cleared without a verdict has no layer",
            [cleared(250.0)],
            "store_cleared",
            ("detected", 150.0, ""),
        ),
    ],
)
def test_an_outcome(sentence: str, events: list[Event], milestone: str, expected: Any) -> None:
    events = log(connected(1.0), injected(RELOGIN), events, frame_of_run())
    found = run(events, plan(RELOGIN, watches=WATCHES)).tables["detections"]
    assert outcome(found, milestone) == expected, sentence


def test_a_fault_that_never_took_effect_has_all_its_rows() -> None:
    measured = run(log(connected(1.0), frame_of_run()), plan(fault(kind="nat_timeout")))
    assert measured.tables["detections"]["milestone"].tolist() == list(MILESTONES)
    assert set(measured.tables["detections"]["outcome"]) == {"not_applicable"}
    assert measured.tables["detections"]["duration_s"].isna().all()
    assert set(measured.tables["not_applicable"]["reason"]) == {"the fault never took effect"}


@pytest.mark.parametrize(
    ("witness", "milestones"), [(GATEWAY, {"suspected", "socket_closed"}), (STORE, {"store_cleared"})]
)
def test_without_its_witness_a_milestone_is_not_watched(witness: Source, milestones: set[str]) -> None:
    events = log(connected(1.0), injected(RELOGIN), frame_of_run())
    found = run([e for e in events if e.source is not witness], plan(RELOGIN, watches=WATCHES)).tables[
        "detections"
    ]
    assert set(found.loc[found["outcome"] == "not_applicable", "milestone"]) == milestones


def test_real_time_is_multiplied_by_the_speedup_and_a_simulation_is_not() -> None:
    def seen_at(time_s: float) -> list[Event]:
        return log(connected(1.0), injected(fault()), suspected(time_s), frame_of_run())

    fast = [structs.replace(e, time_s=e.time_s / 10) for e in seen_at(185.0)]
    model = [structs.replace(e, source=Source.SIMULATION) for e in seen_at(191.0)]
    both = fast + model  # one merged log: each engine takes its own
    real, simulated = (
        run(both, plan(fault()), engine=e, clock=RunClock(10.0)).tables["detections"]
        for e in ("real", "simulated")
    )
    assert outcome(real, "suspected") == ("detected", pytest.approx(85.0), "heartbeat")
    assert outcome(real, "store_cleared") == ("censored", pytest.approx(WATCHED), "")
    assert outcome(simulated, "suspected") == ("detected", 91.0, "heartbeat")
    assert (set(real["speedup"]), set(simulated["speedup"])) == ({10.0}, {1.0})


@pytest.mark.parametrize(("last_s", "watched_s"), [(250.0, 150.0), (400.0, WATCHED)])
def test_a_partial_log_ends_with_its_last_event_but_not_after_the_horizon(
    last_s: float, watched_s: float
) -> None:
    lag = event(last_s, GATEWAY, K.LOOP_LAG, "", "", role="gateway", pid=2, max_lag_s=0.0)
    measured = run(log(connected(1.0), injected(fault()), lag), plan(fault()))
    assert not measured.complete
    assert outcome(measured.tables["detections"], "suspected") == ("censored", watched_s, "")


def test_a_partial_logs_very_last_event_counts_at_any_speedup() -> None:
    events = [
        structs.replace(e, time_s=e.time_s / 7.3)
        for e in log(connected(1.0), injected(fault()), suspected(185.0))
    ]
    found = run(events, plan(fault()), clock=RunClock(7.3)).tables["detections"]
    assert outcome(found, "suspected") == ("detected", pytest.approx(85.0), "heartbeat")


def test_a_refresh_is_seen_on_its_old_connection_and_comes_back_on_a_new_one() -> None:
    reload = fault(kind="refresh")
    events = log(
        connected(1.0),
        injected(reload),
        suspected(100.01, "close_frame"),
        connected(101.0, connection="c1"),
        recovered(101.1, reload),
        suspected(120.0, "heartbeat", "c1"),
        frame_of_run(),
    )
    measured = run(events, plan(reload))
    assert outcome(measured.tables["detections"], "suspected") == (
        "detected",
        pytest.approx(0.01),
        "close_frame",
    )
    assert outcome(measured.tables["detections"], "store_cleared")[0] == "recovered"
    assert measured.tables["false_suspicions"]["count"].item() == 1  # the new connection was healthy
    assert measured.tables["ghosts"].empty


def test_a_connection_that_the_fault_does_not_name_is_the_one_open_at_that_time() -> None:
    events = log(
        connected(1.0, connection="c1"),
        suspected(50.0, "heartbeat", "c1"),
        connected(51.0, connection="c2"),
        structs.replace(injected(fault()), connection_id=""),
        suspected(180.0, "heartbeat", "c2"),
        frame_of_run(),
    )
    assert outcome(run(events, plan(fault())).tables["detections"], "suspected") == (
        "detected",
        80.0,
        "heartbeat",
    )


HEALTHY = plan(fault(n=5))  # client 5 is never hit; what the logs show are clients 0 and 1


@pytest.mark.parametrize(
    ("sentence", "events", "count", "connected_s"),
    [
        ("a healthy client is watched until the end", [], 0, 300.0),
        ("a heartbeat verdict on it is false, and ends its healthy time", [suspected(100.0)], 1, 100.0),
        ("one verdict, counted once", [suspected(100.0), suspected(101.0, "sweep")], 1, 100.0),
        (
            "memory pressure throws a healthy client out as well",
            [suspected(100.0, "memory_pressure")],
            1,
            100.0,
        ),
        *(
            (f"{cause} was announced or asked for", [suspected(100.0, cause)], 0, 100.0)
            for cause in ("close_frame", "tcp_fin", "tcp_reset", "logout", "take_over", "drain")
        ),
        (
            "an outage is no fault",
            [event(90.0, CLIENT, K.OUTAGE_STARTED, client=0), suspected(100.0)],
            1,
            100.0,
        ),
        (
            "a connection that the client has left is dead",
            [event(90.0, CLIENT, K.DISCONNECTED), suspected(100.0)],
            0,
            90.0,
        ),
        (
            "an older connection's verdict leaves the new one alone",
            [event(95.0, CLIENT, K.CONNECTED, connection="c1", client=0), suspected(100.0, connection="c0")],
            0,
            300.0,
        ),
        (
            "it comes back and is healthy again",
            [suspected(100.0), event(120.0, CLIENT, K.CONNECTED, connection="c1", client=0)],
            1,
            280.0,
        ),
        ("a verdict after the end is none", [suspected(310.0)], 0, 300.0),
    ],
)
def test_false_suspicions(sentence: str, events: list[Event], count: int, connected_s: float) -> None:
    begin = event(0.0, CLIENT, K.CONNECTED, client=0)
    table = run(log(begin, events, frame_of_run()), HEALTHY).tables["false_suspicions"]
    assert table["count"].item() == count, sentence
    assert table["client_days"].item() * 86400 == pytest.approx(connected_s), sentence


@pytest.mark.parametrize(
    ("time_s", "back_s", "count"),
    [
        (99.0, None, 1),
        (100.0, None, 0),
        (185.0, None, 0),
        (119.0, 120.0, 0),
        (120.0, 120.0, 0),
        (121.0, 120.0, 1),
    ],
)
def test_a_faulted_clients_verdict_is_false_before_its_fault_and_after_its_recovery(
    time_s: float, back_s: float | None, count: int
) -> None:
    cut = fault(kind="network_cut")
    back = [recovered(back_s, cut)] if back_s else []
    measured = run(log(connected(0.0), injected(cut), back, suspected(time_s), frame_of_run()), plan(cut))
    assert measured.tables["false_suspicions"]["count"].item() == count
    # The same verdict is never both, and never neither.
    is_detection = outcome(measured.tables["detections"], "suspected")[0] == "detected"
    assert is_detection is (count == 0)


def test_a_session_that_no_client_logged_is_taken_for_healthy() -> None:
    assert run(log(suspected(50.0), frame_of_run()), HEALTHY).tables["false_suspicions"]["count"].item() == 1


def test_the_rate_has_an_exact_interval_and_no_event_still_has_an_upper_bound() -> None:
    begin = event(0.0, CLIENT, K.CONNECTED, client=0)
    day = 86400.0
    quiet = run(log(begin, frame_of_run(day)), HEALTHY, horizon_s=day).tables["false_suspicions"].iloc[0]
    assert (quiet["rate_per_client_day"], quiet["rate_lo"]) == (0.0, 0.0)
    assert quiet["rate_hi"] == pytest.approx(3.688879, abs=1e-6)  # −ln 0.025
    nothing = run(frame_of_run(), HEALTHY).tables["false_suspicions"].iloc[0]
    assert nothing["rate_hi"] == float("inf")
    assert pd.isna(nothing["rate_per_client_day"])


def test_chens_figures_from_one_mistake() -> None:
    events = log(
        event(0.0, CLIENT, K.CONNECTED, client=0),
        event(95.0, CLIENT, K.OUTAGE_STARTED, client=0),
        suspected(100.0),
        event(140.0, CLIENT, K.OUTAGE_ENDED, client=0),
        event(150.0, CLIENT, K.CONNECTED, "s0", "c1", client=0),
        frame_of_run(),
    )
    measured = run(events, HEALTHY)
    mistake, figures = (
        measured.tables["false_suspicion_events"].iloc[0],
        measured.tables["accuracy"].iloc[0],
    )
    assert (mistake["in_outage"], mistake["ended"], mistake["duration_s"]) == (True, True, 50.0)
    assert (figures["mistake_recurrence_s"], figures["mistake_duration_s"]) == (300.0, 50.0)
    assert figures["query_accuracy"] == pytest.approx(1 - 50 / 300)


def test_ghosts_and_live_clients_over_time() -> None:
    gone, stays, back = fault(0), fault(1), fault(2, "network_cut")
    events = log(
        *(connected(1.0, n) for n in range(4)),
        *(injected(f, 100.0) for f in (gone, stays, back)),
        cleared(186.0, "s0"),
        recovered(150.0, back),
        *(
            event(t, STORE, K.STORE_SAMPLE, "", "", sessions=n)
            for t, n in ((50, 4), (120, 4), (160, 4), (200, 3), (300, 3))
        ),
        frame_of_run(),
    )
    measured = run(events, plan(gone, stays, back))
    population = measured.tables["population"].drop(columns=["engine", "expected_clients", "gaps"])
    assert population.to_numpy().tolist() == [
        [1, 0, 1, 0],
        [50, 4, 4, 0],
        [120, 1, 4, 3],
        [160, 2, 4, 2],
        [200, 2, 3, 1],
        [300, 2, 3, 1],
    ]
    assert dict(
        zip(measured.tables["ghosts"]["fault_id"], measured.tables["ghosts"]["ghost_s"], strict=True)
    ) == {gone.fault_id: 86.0, stays.fault_id: 200.0, back.fault_id: 50.0}


def test_tcp_info_tells_silence_from_not_answering() -> None:
    crash, frozen = fault(0), fault(1, "frozen")
    events = log(
        connected(1.0, 0),
        connected(1.0, 1),
        injected(crash),
        injected(frozen),
        suspected(180.0, tcp_info={"unacked": 3, "retransmits": 5}),
        event(
            180.0, GATEWAY, K.SUSPECTED, "s1", "c1", "heartbeat", tcp_info={"unacked": 0, "retransmits": 0}
        ),
        frame_of_run(),
    )
    table = run(events, plan(crash, frozen)).tables["tcp_info"]
    shown = table[["fault", "n", "unacked_share", "retransmitted_share"]].to_numpy().tolist()
    assert shown == [["frozen", 1, 0.0, 0.0], ["host_crash", 1, 1.0, 1.0]]


def test_the_timeline_of_a_traced_client_counts_from_its_fault() -> None:
    events = log(
        connected(1.0),
        event(90.0, GATEWAY, K.HEARTBEAT_SENT),
        injected(RELOGIN),
        login(150.0, False),
        event(130.0, GATEWAY, K.HEARTBEAT_MISSED, failures=1, max_failures=3),
        told(187.0, 1),
        frame_of_run(),
        connected(1.0, 4),
    )
    rows = run(events, plan(RELOGIN, watches=WATCHES)).tables["timelines"]
    shown = rows[rows["time_s"] >= -10][["time_s", "lane", "kind", "note"]].to_numpy().tolist()
    assert shown == [
        [-10.0, "gateway", "heartbeat_sent", ""],
        [0.0, "client", "fault_injected", "host_crash"],
        [30.0, "gateway", "heartbeat_missed", "1 of 3"],
        [50.0, "login", "login_refused", ""],
        [87.0, "peers", "peer_notified", "watcher 1"],
    ]


def test_the_client_that_is_drawn_met_its_fault_at_nearly_the_same_phase() -> None:
    def rows(engine: str, n: int, *pings_s: float) -> list[tuple[Any, ...]]:
        sent = [
            (engine, "host_crash", f"host_crash-{n}", -s, "gateway", "heartbeat_sent", "", "")
            for s in pings_s
        ]
        return [*sent, (engine, "host_crash", f"host_crash-{n}", 0.0, "client", "fault_injected", "", "")]

    seen = [
        *rows("simulated", 0, 29.0),
        *rows("simulated", 1, 42.0, 12.0),
        *rows("simulated", 2, 9.0),
        *rows("real", 0, 1.0),  # just before the fault, and not just after it: another story
        *rows("real", 1, 41.5, 11.5),
        *rows("real", 2, 3.0),
        *rows("real", 3, 5.0),  # the simulation has no such client
    ]
    drawn = at_same_phase(frame("timelines", seen))
    assert set(drawn["fault_id"]) == {"host_crash-1"}
    assert set(drawn["engine"]) == {"simulated", "real"}
    without = frame("timelines", [row for row in seen if row[5] == "fault_injected"])
    assert set(at_same_phase(without)["fault_id"]) == {"host_crash-0"}
    assert at_same_phase(without.iloc[:0]).empty


def test_injections_say_how_late_each_fault_was() -> None:
    measured = run(
        log(connected(1.0), injected(fault(), 100.5, scheduled_s=100.0), frame_of_run()), plan(fault())
    )
    assert measured.tables["injections"]["late_s"].tolist() == [0.5]


def test_samples_keep_their_process_and_scenario_time() -> None:
    events = log(
        frame_of_run(),
        event(2.0, CLIENT, K.LOOP_LAG, "", "", role="generator", pid=7, max_lag_s=0.02),
        event(
            3.0,
            CLIENT,
            K.RESOURCES,
            "",
            "",
            role="gateway",
            pid=2,
            cpu_percent=12.5,
            rss_bytes=100,
            descriptors=9,
        ),
        event(4.0, GATEWAY, K.HEARTBEAT_LATENESS, "", "", n=5, p50_s=0.001, p99_s=0.002, max_s=0.003),
    )
    measured = run(events, HEALTHY, clock=RunClock(5.0))
    assert measured.tables["lag"].to_numpy().tolist() == [
        ["gateway", 2, 2.5, 0.001, "node-1"],
        ["generator", 7, 10.0, 0.02, ""],
    ]
    assert measured.tables["resources"].to_numpy().tolist() == [["gateway", 2, 15.0, 12.5, 100, 9, ""]]
    assert measured.tables["lateness"].to_numpy().tolist() == [
        ["real", "node-1", 20.0, 5, 0.001, 0.002, 0.003]
    ]


def test_every_table_has_its_columns_even_of_an_empty_log() -> None:
    measured = run([], plan(fault()))
    for name in SCHEMAS.keys() & {f.name for f in dataclasses.fields(measured)}:
        assert list(getattr(measured, name).columns) == list(SCHEMAS[name])


def test_an_unknown_engine_is_an_error() -> None:
    with pytest.raises(ValueError, match="allowed: simulated, real"):
        measure([], plan(), engine="imagined", horizon_s=1.0)


# -- properties ---------------------------------------------------------------------------------

_KINDS = [
    (GATEWAY, K.CONNECTED),
    (CLIENT, K.CONNECTED),
    (CLIENT, K.DISCONNECTED),
    (GATEWAY, K.SUSPECTED),
    (GATEWAY, K.SOCKET_CLOSED),
    (STORE, K.STORE_CLEARED),
    (CLIENT, K.PEER_NOTIFIED),
    (CLIENT, K.FAULT_INJECTED),
    (CLIENT, K.FAULT_RECOVERED),
    (CLIENT, K.LOGGED_IN),
    (CLIENT, K.LOGIN_REFUSED),
    (CLIENT, K.RUN_ENDED),
    (STORE, K.STORE_SAMPLE),
]
FAULTS = (fault(0, relogin_after_s=0.0), fault(1, "refresh"), fault(2, "network_cut"))


@st.composite
def _events(draw: st.DrawFn) -> Event:
    source, kind = draw(st.sampled_from(_KINDS))
    n = draw(st.integers(0, 2))
    about_fault = kind in (K.FAULT_INJECTED, K.FAULT_RECOVERED, K.LOGGED_IN, K.LOGIN_REFUSED)
    detail = {"fault_id": FAULTS[n].fault_id} if about_fault else {"client": n, "watcher": n}
    cause = draw(st.sampled_from(["heartbeat", "close_frame", "sweep"])) if kind is K.SUSPECTED else ""
    # Few times and few connections, so that events collide.
    return event(
        draw(st.integers(0, 6)),
        source,
        kind,
        f"s{n}",
        draw(st.sampled_from(["c0", "c1", ""])),
        cause,
        **detail,
    )


@settings(max_examples=25, deadline=None)  # one example makes all tables, twice
@given(events=st.lists(_events(), max_size=30), data=st.data())
def test_any_log_gives_one_row_per_fault_and_milestone_whatever_the_order_of_equal_times(
    events: list[Event], data: st.DataObject
) -> None:
    of = plan(*FAULTS, watches={5: (0, 1), 6: (0,)})
    ordered = sorted(events, key=lambda e: e.time_s)
    measured = run(ordered, of, horizon_s=6.0)
    found = measured.tables["detections"]
    assert list(zip(found["fault_id"], found["milestone"], strict=True)) == list(
        itertools.product((f.fault_id for f in FAULTS), MILESTONES)
    )
    assert (found["duration_s"].isna() == (found["outcome"] == "not_applicable")).all()
    assert not (found["duration_s"] < 0).any()
    assert (measured.tables["population"]["ghosts"] >= 0).all()
    assert (measured.tables["population"]["live_clients"] >= 0).all()
    assert (measured.tables["healthy_connections"]["watched_s"] >= 0).all()
    shuffled = sorted(data.draw(st.permutations(events)), key=lambda e: e.time_s)
    again = run(shuffled, of, horizon_s=6.0)
    for name in SCHEMAS.keys() & {f.name for f in dataclasses.fields(measured)}:
        pd.testing.assert_frame_equal(getattr(measured, name), getattr(again, name), check_exact=False)


def test_a_connection_whose_end_is_logged_before_its_beginning_has_lasted_no_time() -> None:
    ended = event(1.0, GATEWAY, K.SUSPECTED, "s0", "c0", "heartbeat")
    measured = run([ended, event(3.0, CLIENT, K.CONNECTED, "s0", "c0", client=0)], plan(), horizon_s=6.0)
    (row,) = measured.tables["healthy_connections"].itertuples()
    assert (row.outcome, row.connected_s, row.watched_s) == ("lost", 3.0, 0.0)
    assert (measured.tables["population"]["live_clients"] >= 0).all()


def test_the_store_was_cleared_between_two_looks_and_not_before_the_fault() -> None:
    crash = fault(0)
    for looked_s, earliest_s in ((185.95, 85.95), (99.0, 0.0)):
        seen = event(186.0, STORE, K.STORE_CLEARED, "s0", "", previous_poll_s=looked_s)
        table = run(log(connected(1.0, 0), injected(crash), seen, frame_of_run()), plan(crash)).tables[
            "detections"
        ]
        row = table[table["milestone"] == "store_cleared"].iloc[0]
        assert float(row["duration_s"]) == 86.0
        assert float(row["earliest_s"]) == pytest.approx(earliest_s)


@pytest.mark.parametrize(
    ("crashed_s", "expected"), [(90.0, "detected"), (150.0, "not_applicable"), (190.0, "detected")]
)
def test_a_socket_whose_node_was_killed_first_was_closed_by_nobody_who_saw_it(
    crashed_s: float, expected: str
) -> None:
    crash = fault(0)
    detail = {"incident_id": "crash", "kind": "node_crash"}
    died = Event(crashed_s, Source.HARNESS, K.INCIDENT_STARTED, node="node-1", detail=detail)
    closed = event(185.5, GATEWAY, K.SOCKET_CLOSED, cause="node_lease")
    table = run(log(connected(1.0, 0), injected(crash), [died], closed, frame_of_run()), plan(crash))
    assert outcome(table.tables["detections"], "socket_closed")[0] == expected


@pytest.mark.parametrize(("before_s", "is_its_own"), [(0.0009, True), (0.0011, False)])
def test_a_goodbye_is_heard_before_it_is_said_by_no_more_than_clocks_are_known(
    before_s: float, is_its_own: bool
) -> None:
    """On another host, whose clock is known by a millisecond; more than that, and the client was lost before."""
    of = plan(fault(kind="refresh"))
    clock = event(20.0, CLIENT, K.CLOCK, "", "", worker="elsewhere", offset_s=5.0, bound_s=0.001)
    gone_s = FAULT_AT_S - before_s
    events = log(
        frame_of_run(),
        connected(1.0),
        clock,
        suspected(gone_s, "close_frame"),
        event(gone_s + 0.0001, GATEWAY, K.SOCKET_CLOSED, cause="close_frame"),
        injected(of.faults[0]),
    )
    found = run(events, of).tables
    [lost] = found["healthy_connections"].query("outcome == 'lost'").shape[:1]
    assert outcome(found["detections"], "suspected") == (
        ("detected", pytest.approx(0.0), "close_frame") if is_its_own else NONE
    )
    assert lost == (not is_its_own)
