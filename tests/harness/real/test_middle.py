"""Healthy clients behind a box that closes, drops or outlives their connections, for real: who is lost, and when.

Real times are those of the scenario over `SPEEDUP`; a round trip is real, so it is as much longer to the scenario.
"""

from __future__ import annotations

import math
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.events.log import read_log
from harness.real.engine import CannotRun, RealSetup, check_machine, run_real
from harness.real.network import NetworkKind
from harness.real.processes.proxy import find_proxy
from harness.runs.directory import RunDir
from reference_server.events import Event, EventKind, Source
from scenarios.load import dump_scenario, parse_scenario
from scenarios.plan import make_plan
from scenarios.schema import Scenario
from tests.support import MachineLate, again_if_late, missing, require_silence

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]

SPEEDUP = 4
N_S = 12.0  # the idle timer; 3 s of real time
ROUND_TRIP_S = 0.4  # real: longer than the grain of nginx's timers
# Real: how much earlier it may be over. A client notes up to 50 ms late that it is connected.
GRAIN_S = {"nginx": 0.35, "haproxy": 0.05}
LAG_S = 0.5  # real: of the slowest of four processes
NEXT_TO_GATEWAY = f"{{idle_timeout: {N_S}s, expiry: close, at: gateway}}"


@dataclass
class Seen:
    """What came of a run until its clients were stopped; scenario seconds."""

    events: list[Event]
    end_s: float

    def of(self, source: Source, kind: EventKind) -> list[Event]:
        return [one for one in self.events if (one.source, one.kind) == (source, kind)]

    def causes(self, source: Source, kind: EventKind) -> Counter[str]:
        return Counter(one.cause for one in self.of(source, kind))

    def late_s(self) -> float:
        """By how much the run's loops were late at most."""
        lags = [one.detail["max_lag_s"] for one in self.events if one.kind is EventKind.LOOP_LAG]
        return SPEEDUP * float(max(lags))

    def lifetimes_s(self) -> dict[str, tuple[float, float | None]]:
        """When each connection of a client began, and how long it lived; None: to the end."""
        ended = {one.connection_id: one.time_s for one in self.of(Source.CLIENT, EventKind.DISCONNECTED)}
        return {
            one.connection_id: (
                one.time_s * SPEEDUP,
                (ended[one.connection_id] - one.time_s) * SPEEDUP if one.connection_id in ended else None,
            )
            for one in self.of(Source.CLIENT, EventKind.CONNECTED)
        }


def scenario(duration_s: float, policy: str, network: str, more: str = "") -> Scenario:
    return parse_scenario(
        f"name: middle\nclients: 20\nramp: 1s\nduration: {duration_s}s\nspeedup: {SPEEDUP}\n"
        f"liveness: {{session_timeout: null, {policy}}}\nnetwork: {{{network}}}\n{more}"
    )


def run(
    told: Scenario, folder: Path, network: NetworkKind = "loopback", *, bears_s: float = math.inf
) -> Seen:
    """Run a scenario.

    Args:
        told: what is to happen.
        folder: gets the run.
        network: where.
        bears_s: real: where a loop was later, the law says nothing of the run, which is made again then.
    """
    plan, setup, directory = make_plan(told), RealSetup(network=network), RunDir(folder / "run")
    check_machine(plan, told, setup)

    def once() -> Seen:
        if directory.path.exists():
            shutil.rmtree(directory.path)
        directory.logs.mkdir(parents=True)
        plan.save(directory.plan)
        directory.scenario.write_text(dump_scenario(told))
        run_real(told, plan, directory, setup=setup)
        events = [event for path in directory.logs.glob("*.jsonl") for event in read_log(path).events]
        (ended,) = (one for one in events if one.kind is EventKind.RUN_ENDED)
        events = sorted((one for one in events if one.time_s < ended.time_s), key=lambda one: one.time_s)
        seen = Seen(events, ended.time_s * SPEEDUP)
        if (late_s := seen.late_s() / SPEEDUP) > bears_s:
            raise MachineLate(f"a loop was {late_s:.2f} s late")
        return seen

    return again_if_late(once)


def ping(interval_s: float) -> str:
    return f"heartbeat_interval: {interval_s}s, heartbeat_timeout: 6s, max_failures: 2"


@pytest.fixture(params=["nginx", "haproxy"])
def proxy(request: pytest.FixtureRequest) -> Any:
    if find_proxy(request.param) is None:
        missing(f"no {request.param}: apt install {request.param}")
    return request.param


@pytest.mark.parametrize("interval_s", [N_S - 4, N_S], ids=["below", "equal"])
def test_pings_up_to_the_timer_of_a_proxy_next_to_the_gateway_keep_everybody(
    proxy: Any, interval_s: float, tmp_path: Path
) -> None:
    """The longest gap is T less a round trip: the ping passes at once, its answer a round trip later."""
    told = scenario(40, ping(interval_s), f"round_trip: {ROUND_TRIP_S}s, nat: {NEXT_TO_GATEWAY}")
    seen = run(told, tmp_path, proxy, bears_s=ROUND_TRIP_S / 2)
    assert len(seen.lifetimes_s()) == 20
    assert not seen.of(Source.CLIENT, EventKind.DISCONNECTED)


def test_pings_above_the_timer_of_a_proxy_lose_everybody_to_the_middle(proxy: Any, tmp_path: Path) -> None:
    """A first ping later than N comes too late: lost at N. An earlier one, at U: lost N after its answer.

    An answer that is late by T less N and a round trip leaves less than N until the next ping, and keeps its client.
    """
    interval_s = N_S + 4
    told = scenario(60, ping(interval_s), f"round_trip: {ROUND_TRIP_S}s, nat: {NEXT_TO_GATEWAY}")
    seen = run(told, tmp_path, proxy, bears_s=0.8 * ((interval_s - N_S) / SPEEDUP - ROUND_TRIP_S))
    grain_s, lag_s = (one * SPEEDUP + seen.late_s() for one in (GRAIN_S[proxy], LAG_S))
    latest_s = 2 * N_S + ROUND_TRIP_S * SPEEDUP + lag_s
    for began_s, lived_s in seen.lifetimes_s().values():
        if began_s + latest_s < seen.end_s:
            assert lived_s is not None and N_S - grain_s <= lived_s <= latest_s
    assert seen.causes(Source.CLIENT, EventKind.DISCONNECTED).keys() == {"tcp_fin"}
    assert "heartbeat" not in seen.causes(Source.GATEWAY, EventKind.SUSPECTED)


def test_pings_as_far_apart_as_the_timer_of_a_proxy_next_to_the_clients_lose_nearly_everybody(
    tmp_path: Path,
) -> None:
    """The gap there is T + (rtt2 − rtt1)/2: n of them are survived while round trips fall, one time in (n + 1)!."""
    if find_proxy("haproxy") is None:
        missing("no haproxy: apt install haproxy")  # nginx's timers are too coarse for this
    nat = f"{{idle_timeout: {N_S}s, expiry: close, at: client}}"
    network = f"round_trip: {{uniform: {{low: 50ms, high: 400ms}}}}, nat: {nat}"
    seen = run(scenario(72, ping(N_S), network), tmp_path, "haproxy")
    lost = {one.session_id for one in seen.of(Source.CLIENT, EventKind.DISCONNECTED)}
    assert len(lost) >= 17, "of 20 one in 120 survives the four gaps that all have"
    assert "heartbeat" not in seen.causes(Source.GATEWAY, EventKind.SUSPECTED)


def test_a_proxy_closes_idle_connections_and_clients_come_back(proxy: Any, tmp_path: Path) -> None:
    told = scenario(
        40,
        "heartbeat_interval: null",
        f"nat: {NEXT_TO_GATEWAY}",
        "reconnect: {backoff_base: 1s, jitter: none}",
    )
    seen = run(told, tmp_path, proxy, bears_s=LAG_S / 2)
    grain_s, lag_s = (one * SPEEDUP + seen.late_s() for one in (GRAIN_S[proxy], LAG_S))
    lived = [one for _, one in seen.lifetimes_s().values() if one is not None]
    assert all(N_S - grain_s <= one <= N_S + lag_s for one in lived), lived
    assert len(lived) == 20 * 3, "at 12, 25 and 38 s"
    assert all(one.detail["resumed"] for one in seen.of(Source.CLIENT, EventKind.CONNECTED)[20:])


def test_a_proxy_that_is_not_the_scenario_s_box_is_refused(proxy: Any) -> None:
    told = scenario(40, ping(10), "nat: {idle_timeout: 60s, expiry: drop}")
    with pytest.raises(CannotRun, match="closes both sides"):
        check_machine(make_plan(told), told, RealSetup(network=proxy))


def test_connections_of_a_certain_age_are_closed_whatever_is_said_on_them(tmp_path: Path) -> None:
    seen = run(scenario(40, ping(7), f"max_age: {N_S}s"), tmp_path)
    lived = [one for _, one in seen.lifetimes_s().values() if one is not None]
    assert len(lived) >= 20 * 2
    # It is as old as its socket, and notes up to 50 ms late that it is connected.
    earliest_s, latest_s = N_S - 0.05 * SPEEDUP - seen.late_s(), N_S + LAG_S * SPEEDUP + seen.late_s()
    assert earliest_s <= min(lived) <= max(lived) <= latest_s


@pytest.mark.root
def test_a_client_whose_path_was_forgotten_gives_up_by_its_own_limit_and_comes_back(tmp_path: Path) -> None:
    """Pings every 16 s behind a box that drops after 12: a client that hears nothing for 20 s leaves."""
    require_silence()
    told = scenario(
        40,
        ping(16),
        f"nat: {{idle_timeout: {N_S}s, expiry: drop}}",
        "reconnect: {idle_limit: 20s, backoff_base: 1s}",
    )
    seen = run(told, tmp_path)
    assert seen.causes(Source.CLIENT, EventKind.DISCONNECTED).keys() == {"client_limit"}
    # It counts from what it heard last, and notes up to 50 ms late that it is connected.
    earliest_s = 20 - 0.05 * SPEEDUP - seen.late_s()
    for began_s, lived_s in seen.lifetimes_s().values():
        # The last ping that passes comes at U(0, 12), or none does.
        if lived_s is not None:
            assert earliest_s <= lived_s <= 20 + N_S + LAG_S * SPEEDUP + seen.late_s()
        else:
            assert began_s > seen.end_s - (20 + N_S + LAG_S * SPEEDUP + seen.late_s())


@pytest.mark.parametrize(("limit_s", "thrown_out"), [(30, True), (90, False)])
def test_clients_that_beat_by_themselves_in_a_hidden_tab(
    limit_s: int, thrown_out: bool, tmp_path: Path
) -> None:
    """The last beat was U(0, 15) ago, the next one waits for a timer 60 s after hiding."""
    told = parse_scenario(
        "name: hidden\nclients: 20\nramp: 1s\nduration: 110s\nspeedup: 20\ndetector: {kind: client_beats}\n"
        f"liveness: {{heartbeat_interval: 15s, session_timeout: {limit_s}s, sweep_interval: 1s}}\n"
        "faults: [{kind: throttled_timers, share: 100%, at: {uniform: {low: 20s, high: 35s}}, every: 60s}]\n"
    )
    seen = run(told, tmp_path, bears_s=LAG_S)  # no beat is later than the limit: that would be 0.7 s
    hidden = {one.session_id: one.time_s for one in seen.of(Source.CLIENT, EventKind.FAULT_INJECTED)}
    verdicts = [one for one in seen.of(Source.GATEWAY, EventKind.SUSPECTED) if one.cause == "session_timeout"]
    assert len(hidden) == 20
    after_s = [(one.time_s - hidden[one.session_id]) * 20 for one in verdicts]
    assert len(after_s) == (20 if thrown_out else 0)
    assert all(limit_s - 15 - LAG_S * 20 <= one <= limit_s + 1 + LAG_S * 20 for one in after_s), after_s


@pytest.mark.parametrize("data_counts", [False, True])
def test_traffic_that_keeps_the_gateway_busy_starves_answers(data_counts: bool, tmp_path: Path) -> None:
    """Two seconds of work a second: a pong due at t is read at about 2t. Where data counts that harms nobody.

    Ten clients are a second of work a second. Until more than the other ten are thrown out the loop does not catch up.
    """
    told = parse_scenario(
        "name: busy\nclients: 20\nramp: 1s\nduration: 14s\nspeedup: 2\n"
        "liveness: {heartbeat_interval: 3s, heartbeat_timeout: 3s, max_failures: 1, session_timeout: null, "
        f"data_counts: {str(data_counts).lower()}}}\n"
        "traffic: {to_gateway: {every: 100ms, bytes: 200}, to_client: {every: 1s}, service: 10ms}\n"
    )
    seen = run(told, tmp_path)
    thrown_out = seen.causes(Source.GATEWAY, EventKind.SUSPECTED)["heartbeat"]
    assert thrown_out == 0 if data_counts else thrown_out > 10, thrown_out


@pytest.mark.parametrize("limit", ["null", "1s"])
def test_a_handshake_that_takes_too_long_is_given_up_and_tried_again(limit: str, tmp_path: Path) -> None:
    """All are closed at 8 s and come back to a loop that stalls for 3.5 s from 7.9 s (the ramp's end and 6.9 s)."""
    told = scenario(
        20,
        ping(60),
        "max_age: 8s",
        f"reconnect: {{connect_timeout: {limit}, backoff_base: 1s}}\n"
        "incidents: [{kind: gateway_stall, at: 6.9s, length: 3.5s, node: 1}]\n",
    )
    came = run(told, tmp_path).of(Source.CLIENT, EventKind.CONNECTED)
    assert sum(one.detail["resumed"] for one in came) >= 10
    given_up = "takes too long" in (tmp_path / "run" / "logs" / "locust_failures.csv").read_text()
    assert given_up == (limit != "null")
