"""System B's own words: its configuration file as a scenario, and the environments that its document has."""

from __future__ import annotations

import pytest
import yaml

from harness.serve import what_to_serve
from reference_server.liveness.kinds import SendErrors
from reference_server.presets import UnknownPresetError
from scenarios.load import ScenarioError, parse_scenario
from scenarios.system_b import ENVIRONMENTS, environment, is_b_config, read_b_config

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
    intervals = {name: environment(name)["heartbeat_interval"] for name in ENVIRONMENTS}
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
