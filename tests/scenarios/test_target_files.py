"""Target files: what is wrong is said with key and choice; what is right becomes a scenario's heartbeat."""

from __future__ import annotations

from typing import Any

import pytest

from harness.judge.thresholds import ThresholdError, check_thresholds
from harness.simulated import simulate
from harness.theory.predict import predict
from reference_server.events import EventKind
from scenarios.load import ScenarioError, dump_scenario, parse_scenario
from scenarios.plan import make_plan
from scenarios.target import Heartbeat, StoreWitness, filled
from scenarios.target_files import TargetError, bundled_targets, load_target, parse_target, told_otherwise

_TARGET = """
target: mine
connect: {url: "ws://127.0.0.1:{port}/ws?user={client}"}
start: {command: [server, "{port}"]}
heartbeat: {model: ping_deadline, interval: 20s, timeout: 10s, settable: [interval, timeout]}
"""
_SCENARIO = """
name: foreign
clients: 40
ramp: 10s
duration: 100s
speedup: 5
faults: [{kind: frozen, share: 50%, at: {uniform: {low: 0s, high: 40s}}}]
"""


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("conect: {}", "conect: unknown key; did you mean connect?"),
        ("witnesses: {suspected: gone}", "names no client; allowed: a pattern that holds {client} or {user}"),
        ("witnesses: {suspected: '({client}'}", "not a regular expression"),
        ("heartbeat: {model: ping_deadline, interval: 20s}", "ping_deadline needs timeout"),
        ("heartbeat: {model: sometimes}", "heartbeat.model: got 'sometimes'"),
        ("connect: {url: 'http://example.org/'}", "connect.url: got 'http://example.org/'"),
        ("witnesses: {store_cleared: {key: online}}", "names no client"),
        ("witnesses: {store_cleared: {key: 'a:{user}', set: b}}", "got key and set; allowed: one of key"),
        ("witnesses: {store_cleared: {key: 'a:{user}', field: b}}", "field does not go with key"),
        ("witnesses: {count: {prometheus: 'http://h/'}}", "prometheus needs metric"),
        ("witnesses: {count: {http: 'http://h/', json: n}}", "witnesses.count.json: got 'n'"),
    ],
)
def test_a_wrong_key_is_named_with_what_is_allowed(written: str, said: str) -> None:
    key = written.partition(":")[0]
    text = "\n".join(line for line in _TARGET.splitlines() if not line.startswith(key)) + f"\n{written}\n"
    with pytest.raises(TargetError, match="problem") as caught:
        parse_target(text, "my.yaml")
    assert said in str(caught.value)


def test_every_bundled_target_can_be_read() -> None:
    assert {load_target(name).target for name in bundled_targets()} == set(bundled_targets())


@pytest.mark.parametrize(
    ("heartbeat", "low_s", "high_s"),
    [
        ({"model": "ping_deadline", "interval": "20s", "timeout": "10s"}, 10, 30),
        ({"model": "next_tick", "interval": "30s"}, 30, 60),
        ({"model": "next_tick", "interval": "30s", "misses": 2}, 60, 90),
        ({"model": "idle_limit", "interval": "30s", "timeout": "60s"}, 30, 60),
        ({"model": "idle_limit", "interval": "30s", "timeout": "60s", "look_every": "10s"}, 30, 70),
        ({"model": "intervals", "interval": "30s"}, 30, 90),
        # Daphne: looks every 2 s whether a ping is due, deadlines on whole seconds, downwards
        (
            {
                "model": "ping_deadline",
                "interval": "20s",
                "timeout": "30s",
                "look_every": "2s",
                "round": {"to": "1s", "way": "down"},
            },
            29,
            52,
        ),
        # aiohttp: timers above 5 s on whole seconds, upwards
        (
            {
                "model": "ping_deadline",
                "interval": "30s",
                "timeout": "15s",
                "round": {"to": "1s", "way": "up", "above": "5s"},
            },
            15,
            47,
        ),
        ({"model": "next_tick", "interval": "30s", "round": {"to": "1s", "way": "up"}}, 30, 62),
    ],
)
def test_a_model_of_a_heartbeat_has_its_law(
    heartbeat: dict[str, object], low_s: float, high_s: float
) -> None:
    heartbeat = {**heartbeat, "first": "random"}
    target = parse_target(_TARGET).model_copy(update={"heartbeat": Heartbeat.model_validate(heartbeat)})
    scenario = parse_scenario(_SCENARIO, target=target.model_dump(mode="json"), speedup=1, duration="400s")
    law = next(one.law for one in predict(scenario) if one.milestone == "suspected")
    assert law is not None
    assert (law.lo_s, law.hi_s) == pytest.approx((low_s, high_s), abs=0.01)
    assert law.mass == pytest.approx(1)


def test_the_grain_of_a_servers_timers_is_real_time_and_one_draw_for_a_run_of_the_model() -> None:
    raw = parse_target(_TARGET).model_dump(mode="json")
    raw["heartbeat"] |= {
        "interval": "30s",
        "timeout": "15s",
        "round": {"to": "1s", "way": "up", "above": "5s"},
    }
    with pytest.raises(ScenarioError, match="cannot be told round"):
        parse_scenario(_SCENARIO, target=raw, speedup=2)
    fast = parse_scenario(_SCENARIO, target=raw, speedup=10)  # timers of 3 s and 1.5 s are not rounded
    assert fast.target is not None and fast.target.heartbeat.grain_at(10) is None
    slow = parse_scenario(_SCENARIO, target=raw, speedup=1, clients=200)
    events = simulate(slow, make_plan(slow))
    struck = {e.session_id: e.time_s for e in events if e.kind is EventKind.FAULT_INJECTED}
    took_s = [
        e.time_s - struck[e.session_id]
        for e in events
        if e.kind is EventKind.SUSPECTED and e.session_id in struck
    ]
    assert len(took_s) == 100
    assert min(took_s) >= 15 and max(took_s) <= 47.1 and max(took_s) - min(took_s) > 25
    with pytest.raises(TargetError, match="round: idle_limit has none"):
        parse_target(_TARGET.replace("model: ping_deadline", "model: idle_limit, round: {to: 1s, way: up}"))


def test_a_server_without_timers_never_notices_and_an_unknown_one_has_no_law() -> None:
    for model, mass in (("never", 0.0), ("unknown", None)):
        raw = parse_target(_TARGET).model_dump(mode="json") | {"heartbeat": {"model": model}}
        scenario = parse_scenario(_SCENARIO, target=raw, speedup=1)
        found = [one for one in predict(scenario) if one.milestone == "suspected"]
        assert [one.law and one.law.mass for one in found] == [mass]


def test_a_lag_of_the_socket_moves_its_own_milestone_alone_and_is_no_milestone_of_a_faster_run() -> None:
    raw = parse_target(_TARGET).model_dump(mode="json")
    raw["heartbeat"]["socket_lag"] = "30s"
    slow = parse_scenario(_SCENARIO, target=raw, speedup=1)
    laws = {one.milestone: one.law for one in predict(slow)}
    assert laws.keys() == {"suspected", "socket_closed"}
    assert laws["socket_closed"] is not None and laws["suspected"] is not None
    assert laws["socket_closed"].lo_s - laws["suspected"].lo_s == pytest.approx(30)
    assert slow.witnessed("real") == frozenset({"socket_closed"})
    assert parse_scenario(_SCENARIO, target=raw).witnessed("real") == frozenset()


def test_a_scenario_with_a_target_comes_back_from_its_own_text() -> None:
    scenario = parse_scenario(_SCENARIO, target=parse_target(_TARGET).model_dump(mode="json"))
    assert parse_scenario(dump_scenario(scenario)) == scenario
    assert scenario.liveness.patience_s == 10
    assert scenario.target is not None and scenario.target.times(scenario.clock)["interval_ms"] == 4000


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        (
            "incidents",
            [{"kind": "gateway_stall", "at": {"constant": "5s"}, "length": {"constant": "1s"}}],
            "incidents",
        ),
        ("gateway", {"nodes": 2}, "gateway"),
    ],
)
def test_what_only_the_reference_gateway_has_is_refused(key: str, value: Any, said: str) -> None:
    with pytest.raises(ScenarioError, match=said):
        parse_scenario(_SCENARIO, target=parse_target(_TARGET).model_dump(mode="json"), **{key: value})


def test_a_speedup_that_the_server_cannot_be_told_is_refused() -> None:
    raw = parse_target(_TARGET).model_dump(mode="json")
    raw["heartbeat"]["settable"] = ["interval"]
    with pytest.raises(ScenarioError, match="cannot be told timeout"):
        parse_scenario(_SCENARIO, target=raw)


@pytest.mark.parametrize(
    ("threshold", "said"),
    [
        (
            "detection_latency.p99 < 40s",
            "no witness of mine sees suspected in this run; allowed: milestone=socket_c",
        ),
        ("false_suspicions.count == 0", "no witness of mine sees suspected"),
        ("ghosts.at_end == 0", "no witness of mine sees store_cleared"),
        ("counted_ghosts.max < 5", "nobody counts the connections of mine"),
        ("incidents.clients_lost == 0", "only the reference gateway has this"),
        ("detection_latency{milestone=socket_closed}.p99 < 40s", ""),
        ("healthy.clients_lost.count == 0", ""),
    ],
)
def test_a_threshold_that_nobody_could_measure_is_an_error_before_the_run(threshold: str, said: str) -> None:
    raw = parse_target(_TARGET).model_dump(mode="json")
    scenario = parse_scenario(_SCENARIO, target=raw, thresholds=[threshold])
    if not said:
        assert len(check_thresholds(scenario)) == 1
        return
    with pytest.raises(ThresholdError, match=said):
        check_thresholds(scenario)


def test_a_witness_of_store_peers_or_count_makes_its_thresholds_possible() -> None:
    raw = parse_target(_TARGET).model_dump(mode="json")
    raw["witnesses"] = {
        "store_cleared": {"hash": "online", "field": "{user}"},
        "peers_notified": "dialect",
        "count": {"http": "http://127.0.0.1:{port}/n", "json": "$.n"},
    }
    told = [
        "ghosts.at_end == 0",
        "ghost_seconds.p99 < 30s",
        "counted_ghosts.max < 5",
        "detection_latency{milestone=peers_notified}.p99 < 40s",
    ]
    scenario = parse_scenario(_SCENARIO, target=raw, thresholds=told)
    assert len(check_thresholds(scenario)) == len(told)
    assert scenario.witnessed("real") == frozenset({"socket_closed", "store_cleared", "peers_notified"})
    assert scenario.sessions.watchers_per_user == 1
    assert parse_scenario(dump_scenario(scenario)) == scenario
    assert scenario.target is not None
    assert scenario.target.without(["store_cleared"]).witnesses.milestones == {
        "socket_closed",
        "peers_notified",
    }


@pytest.mark.parametrize(
    ("record", "question"),
    [
        ({"key": "s:{user}"}, ("EXISTS", "s:{user}")),
        ({"key": "s:{user}", "shows": "online"}, ("GET", "s:{user}")),
        ({"hash": "online", "field": "{user}"}, ("HEXISTS", "online", "{user}")),
        ({"hash": "user:{user}"}, ("EXISTS", "user:{user}")),
        ({"set": "online", "member": "{user}"}, ("SISMEMBER", "online", "{user}")),
        ({"zset": "online", "member": "{user}"}, ("ZSCORE", "online", "{user}")),
        ({"zset": "group:{user}"}, ("EXISTS", "group:{user}")),
    ],
)
def test_a_record_of_presence_is_one_question_to_redis(
    record: dict[str, str], question: tuple[str, ...]
) -> None:
    assert StoreWitness.model_validate(record).question == question


def test_a_negative_control_tells_the_server_another_time() -> None:
    told = told_otherwise(parse_target(_TARGET), ["timeout=12s"])
    assert told is not None and told.heartbeat.timeout == 12
    with pytest.raises(TargetError, match="allowed: interval, timeout"):
        told_otherwise(parse_target(_TARGET), ["socket_lag=1s"])


def test_only_known_placeholders_are_filled_in() -> None:
    assert filled('{"port": {port}} {other} {port}', {"port": 80}) == '{"port": 80} {other} 80'
