"""The gateway's event log: written in batches, complete at the end, harmless when it cannot be written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.events.log import read_log
from reference_server.event_log import LAG_SAMPLED_EVERY_S, Telemetry
from reference_server.events import Cause, EventKind, Source
from tests.reference_server.fakes import FakeClock

FIGURES = {"n": 2.0, "p50_s": 0.001, "p99_s": 0.002, "max_s": 0.002}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(start_s=1000.0)


@pytest.fixture
def telemetry(clock: FakeClock, tmp_path: Path) -> Iterator[Telemetry]:
    made = Telemetry(tmp_path / "deep" / "log.jsonl", 990.0, "node-7", clock, lambda: FIGURES)
    made.start()
    yield made
    made.close()


def test_events_carry_the_run_s_time_and_are_on_disk_within_a_fifth_of_a_second(
    telemetry: Telemetry, clock: FakeClock, tmp_path: Path
) -> None:
    telemetry.log(EventKind.SUSPECTED, "s", "c", Cause.TCP_FIN)
    assert read_log(tmp_path / "deep" / "log.jsonl").events == []
    clock.run_until(clock.time_s + 0.21)
    (event,) = read_log(tmp_path / "deep" / "log.jsonl").events
    assert event.time_s == pytest.approx(10.0)
    assert (event.source, event.kind, event.node) == (Source.GATEWAY, EventKind.SUSPECTED, "node-7")
    assert (event.session_id, event.connection_id, event.cause) == ("s", "c", "tcp_fin")


@pytest.mark.parametrize("since_a_sample_s", [0.0001, 0.003, 0.0099])
def test_the_largest_lag_is_reported_twice_a_second_and_then_forgotten(
    telemetry: Telemetry, clock: FakeClock, tmp_path: Path, since_a_sample_s: float
) -> None:
    clock.run_until(clock.time_s + 0.1 + since_a_sample_s)
    clock.stall(0.3)
    clock.run_until(clock.time_s + 1.5)
    telemetry.close()
    lags = [
        event.detail["max_lag_s"]
        for event in read_log(tmp_path / "deep" / "log.jsonl").events
        if event.kind is EventKind.LOOP_LAG
    ]
    # ε takes that in: a stall is told too short by less than the time between two samples.
    assert 0.3 - LAG_SAMPLED_EVERY_S < lags[0] <= 0.3
    assert all(lag < 0.001 for lag in lags[1:])
    assert len(lags) == 4  # in 1.9 s, and one at the end


def test_lateness_of_heartbeats_is_reported_once_a_second(
    telemetry: Telemetry, clock: FakeClock, tmp_path: Path
) -> None:
    clock.run_until(clock.time_s + 2.05)
    telemetry.flush()
    found = [
        event.detail
        for event in read_log(tmp_path / "deep" / "log.jsonl").events
        if event.kind is EventKind.HEARTBEAT_LATENESS
    ]
    assert found == [FIGURES, FIGURES]


def test_a_full_disk_ends_the_log_and_not_the_gateway(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    full = Telemetry(Path("/dev/full"), 0.0, "node", clock, lambda: None)
    full.log(EventKind.CONNECTED)
    full.flush()
    assert "No space left" in caplog.text
    full.close()


def test_without_a_path_samples_are_taken_all_the_same(clock: FakeClock) -> None:
    taken: list[float] = []

    def take() -> None:
        taken.append(clock.time_s)

    silent = Telemetry(None, 0.0, "node", clock, take)
    silent.start()
    silent.log(EventKind.CONNECTED)
    clock.run_until(clock.time_s + 3.1)
    assert len(taken) == 3
    silent.close()
    clock.run_until(clock.time_s + 3)
    assert len(taken) == 3


def test_recent_lag_is_that_of_the_last_second_and_of_the_stall_that_goes_on(clock: FakeClock) -> None:
    telemetry = Telemetry(None, 0.0, "node", clock, lambda: None)
    telemetry.start()
    clock.run_until(clock.time_s + 2.0)
    assert telemetry.recent_lag_s() < 0.02
    clock.stall(0.3)  # no timer has run since
    assert 0.28 <= telemetry.recent_lag_s() <= 0.3
    clock.run_until(clock.time_s + 0.45)
    assert 0.28 <= telemetry.recent_lag_s() <= 0.3
    clock.run_until(clock.time_s + 1.0)
    assert telemetry.recent_lag_s() < 0.02
    telemetry.close()


def test_the_last_line_says_how_many_there_were(
    telemetry: Telemetry, clock: FakeClock, tmp_path: Path
) -> None:
    telemetry.log(EventKind.SUSPECTED, session_id="s", connection_id="c", cause=Cause.TCP_FIN)
    telemetry.close()
    *lines, last = read_log(tmp_path / "deep" / "log.jsonl").events
    assert (last.kind, last.detail, last.node) == (EventKind.LOG_CLOSED, {"lines": len(lines)}, "node-7")
