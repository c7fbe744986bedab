from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import pandas as pd
import pytest
from msgspec import structs

from harness.events.history import History
from harness.measure.connections import healthy_connections
from harness.measure.cost import expected_cost, running_cost
from harness.measure.detections import find_outcomes
from harness.measure.one_engine import measure_history
from harness.measure.presence import presence_gaps
from harness.measure.series import population, reconnects
from harness.measure.sessions import presence_flaps, session_quality
from reference_server.events import Event, Source
from scenarios.clock import SCENARIO_TIME, RunClock
from scenarios.plan import Plan
from scenarios.schema import Scenario
from scenarios.target_files import load_target
from tests.harness.handmade import (
    CLIENT,
    END_S,
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


def history_of(events: list[Event], of: Plan, **changes: Any) -> History:
    given: dict[str, Any] = {"engine": "real", "clock": SCENARIO_TIME, "horizon_s": END_S}
    return History(events, of, **{**given, **changes})


Rows = dict[tuple[str, str], dict[Hashable, Any]]


def samples_of(history: History) -> pd.DataFrame:
    held = healthy_connections(history)
    return population(history, held, presence_gaps(history, held), find_outcomes(history).detections)


def quality(events: list[Event], of: Plan) -> Rows:
    history = history_of(events, of)
    detections = find_outcomes(history).detections
    samples = samples_of(history)
    table = session_quality(history, detections, samples, presence_flaps(history))
    return {(row["figure"], row["fault"]): row for row in table.to_dict("records")}


def cost_of(history: History) -> dict[Hashable, Any]:
    detections = find_outcomes(history).detections
    (row,) = running_cost(history, samples_of(history), detections).to_dict("records")
    return row


def again(time_s: float, n: int = 0, connection: str = "c9") -> Event:
    return event(time_s, CLIENT, K.CONNECTED, f"s{n}", connection, client=n, resumed=True)


def unknown(time_s: float, n: int = 0) -> Event:
    return event(time_s, CLIENT, K.SESSION_UNKNOWN, f"s{n}", "")


def told(kind: K, time_s: float, watcher: int = 1, session: str = "s0") -> Event:
    return event(time_s, CLIENT, kind, session, "", user_id="user-0", watcher=watcher)


def sample(time_s: float, sessions: int) -> Event:
    return event(time_s, STORE, K.STORE_SAMPLE, "", "", sessions=sessions, online=sessions)


def test_resumptions_are_counted_per_fault_that_hit_the_session() -> None:
    one, two = fault(0, "refresh"), fault(1, "refresh")
    events = log(
        connected(1.0, 0),
        connected(1.0, 1),
        connected(1.0, 2),
        injected(one),
        injected(two),
        again(101.0, 0),
        unknown(115.0, 1),
        again(50.0, 2),
        frame_of_run(),
    )
    table = quality(events, plan(one, two))
    refresh = table["resumed", "refresh"]
    assert (refresh["count"], refresh["denominator"]) == (1, 2)
    assert refresh["lo"] == pytest.approx(0.01258, abs=1e-5)  # Clopper and Pearson: 1 of 2
    assert refresh["hi"] == pytest.approx(0.98742, abs=1e-5)
    assert table["resumed", "no fault"]["count"] == 1
    assert table["resumed", ""]["denominator"] == 3
    stale = table["stale_session_errors", ""]
    assert (stale["count"], stale["denominator"]) == (1, 6)  # three first connections, three returns


def test_a_session_told_unknown_before_it_ever_connected_is_stale_but_no_return() -> None:
    table = quality(log(unknown(5.0, 3), frame_of_run()), plan())
    assert table["stale_session_errors", ""]["count"] == 1
    row = table["resumed", ""]
    assert row["denominator"] == 0
    assert (row["lo"], row["hi"]) == (0.0, 1.0), "nothing is known"


@pytest.mark.parametrize(
    ("sentence", "events", "expected"),
    [
        (
            "offline and back within a minute: flicker",
            [told(K.PEER_NOTIFIED, 100.0), told(K.PEER_ONLINE, 103.0)],
            [3.0],
        ),
        (
            "back after more than a minute: it was away",
            [told(K.PEER_NOTIFIED, 100.0), told(K.PEER_ONLINE, 161.0)],
            [],
        ),
        ("online first is a login", [told(K.PEER_ONLINE, 99.0), told(K.PEER_NOTIFIED, 100.0)], []),
        (
            "another session of the user is a new login",
            [told(K.PEER_NOTIFIED, 100.0), told(K.PEER_ONLINE, 103.0, session="s7")],
            [],
        ),
        (
            "another watcher's news is not this one's",
            [told(K.PEER_NOTIFIED, 100.0), told(K.PEER_ONLINE, 103.0, watcher=2)],
            [],
        ),
        (
            "each time counts, with the next return",
            [
                told(K.PEER_NOTIFIED, 100.0),
                told(K.PEER_ONLINE, 103.0),
                told(K.PEER_NOTIFIED, 110.0),
                told(K.PEER_ONLINE, 111.0),
            ],
            [3.0, 1.0],
        ),
    ],
)
def test_flicker(sentence: str, events: list[Event], expected: list[float]) -> None:
    found = presence_flaps(history_of(log(events, frame_of_run()), plan()))
    assert found["gap_s"].tolist() == expected, sentence


def test_flicker_is_scenario_time() -> None:
    fast = [told(K.PEER_NOTIFIED, 10.0), told(K.PEER_ONLINE, 13.0)]
    history = history_of(log(fast, frame_of_run(END_S / 10)), plan(), clock=RunClock(10.0))
    assert presence_flaps(history)["gap_s"].tolist() == [pytest.approx(30.0)]
    assert presence_flaps(history, within_s=20.0).empty


def test_records_of_the_dead_at_the_end() -> None:
    faults = [fault(n) for n in range(3)]
    events = log(
        *(connected(1.0, n) for n in range(3)),
        *(injected(one) for one in faults),
        event(185.0, GATEWAY, K.SUSPECTED, "s0", "c0", "heartbeat"),
        event(186.0, STORE, K.STORE_CLEARED, "s0", ""),
        event(190.0, GATEWAY, K.SUSPECTED, "s1", "c1", "heartbeat"),
        sample(END_S, 2),
        frame_of_run(),
    )
    table = quality(events, plan(*faults))
    left = table["records_of_dead_sessions", ""]
    assert (left["count"], left["denominator"]) == (2, 3)
    assert table["records_left_after_verdict", ""]["count"] == 1, "s1: suspected, never cleared"
    assert table["records_of_nobody", ""]["count"] == 0, "ghosts are somebody's"


def test_a_refresh_on_its_way_back_is_not_dead() -> None:
    one = fault(0, "refresh")
    table = quality(log(connected(1.0), injected(one), frame_of_run()), plan(one))
    assert table["records_of_dead_sessions", ""]["denominator"] == 0


@pytest.mark.parametrize(("sessions", "lacking", "nobodys"), [(2, 0, 0), (1, 1, 0), (5, 0, 3)])
def test_the_last_sample_is_held_against_the_clients(sessions: int, lacking: int, nobodys: int) -> None:
    events = log(connected(1.0, 0), connected(1.0, 1), sample(290.0, sessions), frame_of_run())
    table = quality(events, plan())
    assert table["live_sessions_without_record", ""]["count"] == lacking
    assert table["records_of_nobody", ""]["count"] == nobodys
    assert "2 live clients" in table["records_of_nobody", ""]["note"]


def test_a_login_from_elsewhere_has_a_record_and_no_connection_yet() -> None:
    elsewhere = event(280.0, CLIENT, K.LOGGED_IN, "s9", "", relogin=True, fault_id="f")
    table = quality(log(connected(1.0, 0), elsewhere, sample(290.0, 2), frame_of_run()), plan())
    assert table["records_of_nobody", ""]["count"] == 0
    assert "1 logins from elsewhere" in str(table["records_of_nobody", ""]["note"])


def test_cost_is_what_the_gateway_counted_in_scenario_time() -> None:
    """100 clients, T = 30 s, speedup 5: 16.7 heartbeats a real second are 3.33 a scenario second."""
    counts = [event(t, GATEWAY, K.HEARTBEAT_LATENESS, "", "", n=17 if t % 3 else 16) for t in range(4, 60)]
    used = [
        event(
            t,
            Source.HARNESS,
            K.RESOURCES,
            "",
            "",
            role="gateway",
            pid=1,
            cpu_percent=12.5,
            rss_bytes=50_000_000 + t,
            descriptors=9,
        )
        for t in (1, 30, 50)
    ]
    events = log(connected(0.1, 0), counts, used, frame_of_run(60.0))
    history = history_of(events, plan(), clock=RunClock(5.0))
    row = cost_of(history)
    assert row["heartbeats_per_s"] == pytest.approx(50 / 3 / 5, rel=0.01)
    assert row["frames_per_s"] == 2 * row["heartbeats_per_s"]
    assert row["gateway_rss_bytes"] == 50_000_050
    assert row["gateway_cpu_percent"] == 12.5
    assert row["basis"] == "counted by the gateway"
    (expected,) = expected_cost(Scenario(name="idle", duration=60.0), 100).to_dict("records")
    assert row["frames_per_s"] == pytest.approx(expected["frames_per_s"], rel=0.01)
    assert row["bytes_per_s"] == pytest.approx(expected["bytes_per_s"], rel=0.01)


def test_without_a_count_the_traced_sessions_speak_for_all() -> None:
    one = fault(0)
    beats = [event(t, GATEWAY, K.HEARTBEAT_SENT) for t in (15.0, 45.0, 75.0, 105.0)]
    events = log(
        connected(10.0, 0), connected(10.0, 1), injected(one), beats, sample(290.0, 2), frame_of_run()
    )
    model = [structs.replace(e, source=Source.SIMULATION) for e in events]
    history = history_of(model, plan(one), engine="simulated")
    row = cost_of(history)
    assert row["clients"] == pytest.approx(2.0)
    assert row["heartbeats_per_s"] == pytest.approx(2.0 * 3 / 90)
    assert row["basis"].startswith("3 heartbeats of the traced sessions")


def test_the_first_pause_of_a_connection_is_no_sign_of_fewer_heartbeats() -> None:
    one = fault(0)
    beats = [
        event(t, GATEWAY, K.HEARTBEAT_SENT) for t in (40.0, 70.0)
    ]  # 30 s after the connect, the fault at 100 s
    events = log(connected(10.0, 0), injected(one), beats, sample(290.0, 1), frame_of_run())
    row = cost_of(
        history_of(
            [structs.replace(e, source=Source.SIMULATION) for e in events], plan(one), engine="simulated"
        )
    )
    assert row["heartbeats_per_s"] == pytest.approx(row["clients"] / 30)


def test_what_nobody_saw_of_another_server_is_empty_not_zero() -> None:
    one = fault(0)
    events = log(connected(10.0, 0), connected(10.0, 1), injected(one), sample(290.0, 2), frame_of_run())
    history = history_of(events, plan(one), witnessed=frozenset({"socket_closed"}))
    tables = measure_history(history).tables
    assert tables["population"][["store_sessions", "ghosts", "gaps"]].isna().all(axis=None)
    assert tables["false_suspicions"].empty and tables["accuracy"].empty
    assert set(tables["session_quality"]["figure"]) == {"resumed"}
    row = cost_of(history)
    assert all(row[name] != row[name] for name in ("frames_per_s", "bytes_per_s", "redis_operations_per_s"))
    assert row["basis"].startswith("not seen")
    target = load_target("uvicorn")
    scenario = Scenario(name="theirs", duration=60.0, target=target, liveness=target.heartbeat.policy_at())
    (expected,) = expected_cost(scenario, 100).to_dict("records")
    assert expected["frames_per_s"] == pytest.approx(10.0), "2N/T"
    assert expected["bytes_per_s"] != expected["bytes_per_s"]
    assert expected["redis_operations_per_s"] != expected["redis_operations_per_s"]


def test_cost_of_a_run_that_logged_nothing_is_empty_not_zero() -> None:
    history = history_of(log(frame_of_run()), plan())
    row = cost_of(history)
    assert row["heartbeats_per_s"] != row["heartbeats_per_s"]


def test_a_storm_is_counted_in_spans() -> None:
    events = log(
        connected(1.0, 0),
        connected(1.5, 1),
        event(100.2, CLIENT, K.DISCONNECTED),
        event(100.4, CLIENT, K.DISCONNECTED, "s1", "c1"),
        again(103.1, 0),
        unknown(103.2, 1),
        event(103.9, CLIENT, K.LOGIN_REFUSED, "", ""),
        event(104.2, CLIENT, K.LOGGED_IN, "s8", ""),
        frame_of_run(),
    )
    table = reconnects(history_of(events, plan()), width_s=2.0)
    rows = {row["time_s"]: row for row in table.to_dict("records")}
    assert rows[0.0]["connected"] == 2, "the gateway's own line of it is not counted again"
    assert rows[100.0]["disconnected"] == 2
    told_of = ("connected", "resumed", "session_unknown", "login_refused")
    assert [rows[102.0][name] for name in told_of] == [1, 1, 1, 1]
    assert rows[104.0]["logged_in"] == 1
    assert table["connected"].sum() == 3


def test_a_long_run_has_spans_that_a_slide_can_show() -> None:
    day = log(connected(1.0), event(86400.0, CLIENT, K.RUN_ENDED, "", ""))
    table = reconnects(history_of(day, plan(), horizon_s=86400.0))
    assert len(table) <= 241
    assert table["connected"].sum() == 1


def test_the_audit_s_differences_are_counted_though_the_run_is_over_by_then() -> None:
    """All kinds together; an audit that could not be made is no row, and a log without one has none."""
    run = log(connected(1.0, 0), sample(290.0, 1), frame_of_run())
    audited = event(
        END_S + 3.0,
        Source.HARNESS,
        K.AUDITED,
        "",
        "",
        sessions=50,
        differences={"ledger_online_nobody": 2, "status_of_nobody": 1},
        took_s=1.0,
    )
    row = quality([*run, audited], plan())["ledger_inconsistencies", ""]
    assert (row["count"], row["denominator"]) == (3, 50)
    assert row["note"] == "2 ledger_online_nobody, 1 status_of_nobody"
    failed = event(END_S + 3.0, Source.HARNESS, K.AUDITED, "", "", error="Redis: gone")
    for events in ([*run, failed], run):
        assert ("ledger_inconsistencies", "") not in quality(events, plan())
    # A run that was cut short ends with its last event, and the audit is none of them.
    partial = [one for one in run if one.kind is not K.RUN_ENDED]
    assert history_of([*partial, audited], plan()).end_s == history_of(partial, plan()).end_s
