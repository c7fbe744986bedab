"""Presets as data: every one is complete and possible, says what its document says, and can be laid over."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import yaml

from harness.cli.main import app
from harness.serve import what_to_serve
from reference_server.config import GatewayConfig
from reference_server.liveness.kinds import ClientBeats, Ping, SendErrors, StateCheck
from reference_server.presets import (
    UnknownPresetError,
    environment,
    environments,
    find_preset,
    is_b_config,
    load_presets,
    merged,
    read_b_config,
)
from scenarios.load import ScenarioError, dump_scenario, parse_scenario
from scenarios.schema import Scenario

# What each document says, in one line: detector, T, idle limit, resume window, second login, close detection.
DOCUMENTED: dict[str, tuple[Any, float | None, float | None, float, str, str]] = {
    "a-before": (StateCheck(cleans_up=False), 60.0, None, 0.0, "refuse", "frames"),
    "a-after": (StateCheck(), 60.0, None, 0.0, "refuse", "frames"),
    "b-before": (Ping(), None, 300.0, 0.0, "take_over", "all"),
    "b-as-written": (SendErrors(), 30.0, 300.0, 0.0, "take_over", "all"),
    "b-heartbeat-alone": (SendErrors(), 30.0, None, 0.0, "take_over", "all"),
    "b-as-meant": (Ping(), 30.0, 300.0, 0.0, "take_over", "all"),
    "c-as-written": (ClientBeats(), 30.0, 60.0, 0.0, "take_over", "all"),
    "c-as-meant": (ClientBeats(), 30.0, 90.0, 10.0, "take_over", "all"),
    "ours": (Ping(), 20.0, 120.0, 10.0, "take_over", "all"),
}


@pytest.mark.parametrize("name", DOCUMENTED)
def test_a_preset_sets_what_its_document_says(name: str) -> None:
    preset = find_preset(name)
    policy = preset.policy
    assert DOCUMENTED[name] == (
        preset.detector,
        policy.heartbeat_interval,
        policy.session_timeout,
        policy.resume_window,
        preset.second_login,
        policy.close_detection,
    )
    GatewayConfig.model_validate(preset.gateway_keys)


def test_the_table_above_is_complete_and_every_preset_explains_itself() -> None:
    presets = load_presets()
    assert list(presets) == list(DOCUMENTED)
    for preset in presets.values():
        assert preset.layers and preset.wrong and len(preset.explains) > 60 and preset.source


def test_what_sets_a_apart_before_and_after_its_fix() -> None:
    before, after = find_preset("a-before").rules, find_preset("a-after").rules
    assert not before.expire and before.refreshed == "never"
    assert after.expire and after.refreshed == "by_the_keepalive"
    assert before.status_written == after.status_written == "at_login"
    assert (find_preset("a-after").policy.session_ttl, find_preset("a-after").policy.status_ttl) == (
        86400.0,
        7200.0,
    )


def test_b_as_meant_is_found_in_the_range_of_the_reference_values() -> None:
    assert find_preset("b-as-meant").policy.detection_range_s == (70.0, 100.0)
    assert find_preset("ours").policy.detection_range_s == (20.0, 40.0)


def test_a_preset_like_another_differs_where_it_says_so() -> None:
    alone, whole = find_preset("b-heartbeat-alone"), find_preset("b-as-written")
    assert alone.policy == whole.policy.model_copy(update={"session_timeout": None})


def test_a_mapping_of_another_kind_replaces_the_whole() -> None:
    base = {"detector": {"kind": "state_check", "cleans_up": False}, "liveness": {"a": 1, "b": 2}}
    over = {"detector": {"kind": "ping"}, "liveness": {"b": 3}}
    assert merged(base, over) == {"detector": {"kind": "ping"}, "liveness": {"a": 1, "b": 3}}


# -- scenarios -----------------------------------------------------------------------------------


def test_keys_of_a_scenario_stand_above_its_preset_and_a_dump_reads_back() -> None:
    text = (
        "name: x\nduration: 60s\npreset: a-after\n"
        "liveness: {status_ttl: 1h}\nsessions: {watchers_per_user: 3}\n"
    )
    read = parse_scenario(text)
    assert read.liveness == find_preset("a-after").policy.model_copy(update={"status_ttl": 3600.0})
    assert (read.sessions.second_login, read.sessions.watchers_per_user) == ("refuse", 3)
    assert read.records == find_preset("a-after").rules
    assert parse_scenario(dump_scenario(read)) == read


BAD = {
    "preset: b-as-writen": "did you mean b-as-written",
    "preset: ours\nliveness: {heartbeat_timeout: 15s}": "of preset ours",
    "preset: [1]": "preset",
}


@pytest.mark.parametrize("text", BAD)
def test_an_error_names_the_preset(text: str) -> None:
    with pytest.raises(ScenarioError, match=BAD[text]):
        parse_scenario(f"name: x\nduration: 60s\n{text}\n")


# -- system B's own words ------------------------------------------------------------------------

B_FILE = """
system: {max_sessions: 10, session_timeout: 180}
websocket: {heartbeat_interval: 30, heartbeat_max_failures: 3}
"""


def test_the_document_s_configuration_is_read_in_sections_and_flat() -> None:
    expected = {"max_sessions": 10, "session_timeout": 180.0, "heartbeat_interval": 30.0, "max_failures": 3}
    raw = yaml.safe_load(B_FILE)
    assert is_b_config(raw)
    assert read_b_config(raw) == expected
    assert read_b_config({key: v for part in raw.values() for key, v in part.items()}) == expected
    assert not is_b_config({"duration": "60s"}) and not is_b_config({})


def test_a_file_in_the_words_of_b_is_a_scenario() -> None:
    read = parse_scenario(B_FILE, default_name="b")
    assert read.preset == "b-as-meant"
    assert (read.liveness.max_sessions, read.liveness.session_timeout) == (10, 180.0)
    with pytest.raises(ScenarioError, match="max_session"):
        parse_scenario("system: {max_sesions: 10}", default_name="b")


def test_a_heartbeat_shorter_than_the_answers_deadline_shortens_it() -> None:
    assert read_b_config({"heartbeat_interval": 4})["heartbeat_timeout"] == 4.0


@pytest.mark.parametrize(("interval", "failures"), [(60, 5), (45, 4)])
def test_what_the_troubleshooting_writes_is_read(interval: int, failures: int) -> None:
    text = f"heartbeat_interval: {interval}  # 增加间隔\n\n# 增加失败阈值\nmax_failures: {failures}\n"
    read = parse_scenario(text, default_name="b").liveness
    assert (read.heartbeat_interval, read.max_failures) == (interval, failures)


def test_the_six_environments() -> None:
    intervals = {name: environment(name)["heartbeat_interval"] for name in environments()}
    assert intervals == {
        "development": "30s",
        "production": "45s",
        "production-recommended": "30s",
        "low-latency": "15s",
        "thrifty": "90s",
        "constrained": "60s",
    }
    served = what_to_serve(None, None, "production-recommended", None).liveness
    assert (served.max_sessions, served.session_timeout, served.max_failures) == (10, 180.0, 3)
    served = what_to_serve(None, None, "constrained", None).liveness
    assert (served.max_sessions, served.session_timeout, served.max_failures) == (5, 120.0, 2)
    assert what_to_serve(None, "b-as-written", "low latency", None).detector == SendErrors()
    with pytest.raises(UnknownPresetError, match="production"):
        environment("prodution")


def test_what_is_served_without_a_word_is_the_demo() -> None:
    assert what_to_serve(None, None, None, 4.0).speedup == 4.0
    assert (what_to_serve(None, None, None, None).preset, what_to_serve(None, None, None, None).speedup) == (
        "ours",
        1,
    )
    assert what_to_serve("demo", None, None, None).name == "demo"
    served: Scenario = what_to_serve(None, "c-as-meant", None, None)
    assert served.detector == ClientBeats()


# -- the commands --------------------------------------------------------------------------------


def test_the_list_and_the_explanations(capsys: pytest.CaptureFixture[str]) -> None:
    app(["presets"], standalone_mode=False)
    listed = capsys.readouterr().out
    assert all(name in listed for name in (*DOCUMENTED, *environments()))
    for name in DOCUMENTED:
        app(["presets", name], standalone_mode=False)
        told = capsys.readouterr().out
        assert find_preset(name).title in told and find_preset(name).source in told


def test_a_gateway_process_takes_a_preset_and_names_an_unknown_one() -> None:
    argv = [sys.executable, "-m", "reference_server", "--preset", "b-as-mean"]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2 and "did you mean b-as-meant" in ended.stderr
    refused = subprocess.run(
        [*argv[:-1], "c-as-written", "--config", "-"],
        input='{"host": "0.0.0.0"}',
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert refused.returncode == 2 and "loopback" in refused.stderr
