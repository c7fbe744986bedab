"""Presets as data: every one is complete and possible, says what its document says, and can be laid over."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from harness.cli.main import app
from harness.serve import what_to_serve
from reference_server.config import GatewayConfig
from reference_server.liveness.kinds import ClientBeats, Ping, SendErrors, StateCheck
from reference_server.presets import find_preset, load_presets, merged
from scenarios.load import ScenarioError, dump_scenario, parse_scenario
from scenarios.schema import Scenario
from scenarios.system_b import ENVIRONMENTS

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
    assert all(name in listed for name in (*DOCUMENTED, *ENVIRONMENTS))
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
