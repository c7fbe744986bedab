"""One row a rule: what it finds, how bad, and that its own fix makes it go away."""

from __future__ import annotations

import ast
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import harness.policy.lint
from harness.policy.lint import (
    Extras,
    LintInputError,
    Setting,
    Severity,
    lint,
    middleboxes_of,
    setting_of,
    setting_of_yaml,
)
from harness.policy.profiles import (
    HeartbeatProfile,
    IdleTimerProfile,
    heartbeat_profile,
    idle_timer_profile,
    load_profiles,
    network_profile,
)
from reference_server.liveness.heartbeat_policy import LivenessPolicy
from scenarios.load import ScenarioError

ERROR, WARNING, INFO = Severity.ERROR, Severity.WARNING, Severity.INFO
PROFILES = load_profiles()

GOOD = Setting(
    name="good",
    interval_s=25.0,
    timeout_s=10.0,
    max_failures=2,
    idle_limit_s=120.0,
    sweep_s=15.0,
    session_ttl_s=86400.0,
    status_ttl_s=300.0,
    resume_window_s=10.0,
    promise_s=60.0,
)
BEATING = Setting(name="beating", interval_s=25.0, idle_limit_s=60.0)


@dataclass(frozen=True)
class Row:
    rule: str
    severity: Severity
    setting: Setting
    says: str  # a number or a word that the finding must give
    fix: str
    box: str = ""

    def __str__(self) -> str:
        return f"{self.rule}-{self.severity}-{self.box}"


def good(**changes: object) -> Setting:
    return replace(GOOD, **changes)  # type: ignore[arg-type]


def beating(**changes: object) -> Setting:
    return replace(BEATING, **changes)  # type: ignore[arg-type]


ROWS = [
    Row("nothing_detects", ERROR, Setting(name="bare"), "924.6 s", "heartbeat_interval 25s"),
    Row("send_only_heartbeat", ERROR, good(answers_checked=False), "924.6 s", "35 to 60 s"),
    Row("timeout_above_interval", ERROR, good(timeout_s=40.0), "40 s", "heartbeat_timeout 25s"),
    Row("retry_below_timeout", ERROR, good(retry_s=5.0), "5 s", "retry_interval 10s"),
    Row("idle_limit_below_interval", ERROR, good(idle_limit_s=25.0), "25 s", "session_timeout 90s"),
    Row("idle_limit_below_interval", ERROR, beating(idle_limit_s=20.0), "20 s", "session_timeout 50s"),
    Row(
        "idle_limit_preempts_heartbeat",
        WARNING,
        good(idle_limit_s=50.0),
        "10 s before the last",
        "session_timeout 90s",
    ),
    Row(
        "sweep_coarser_than_promise",
        ERROR,
        beating(sweep_s=300.0, promise_s=60.0),
        "360 s",
        "sweep_interval 15s",
    ),
    Row("sweep_coarser_than_limit", WARNING, good(sweep_s=300.0), "420 s", "sweep_interval 30s"),
    Row("promise_missed", ERROR, good(max_failures=3), "85 s", "heartbeat_interval 16s"),
    Row("promise_missed", ERROR, good(promise_s=6.0), "60 s", "heartbeat_interval 3s"),
    Row("promise_missed", ERROR, beating(promise_s=20.0), "60 s", "idle limit 20s"),
    Row("ttl_below_detection", ERROR, good(status_ttl_s=45.0), "45 s", "status_ttl 120s"),
    Row("ttl_below_detection", ERROR, good(session_ttl_s=45.0), "45 s", "session_ttl 120s"),
    Row("ghosts_outlive_node", WARNING, good(status_ttl_s=7200.0), "7200 s", "status_ttl 120s"),
    Row("refreshed_past_death", ERROR, good(refreshed_by="open_socket"), "924.6 s", "inbound frame"),
    Row("page_timed_heartbeat", ERROR, beating(timed_by_page=True), "60 s", "150 s"),
    Row("page_timed_heartbeat", WARNING, beating(timed_by_page=True, idle_limit_s=90.0), "30 s", "150 s"),
    Row(
        "library_keepalive_races",
        ERROR,
        good(library_keepalive=(20.0, 20.0)),
        "20 s / 20 s",
        "ping_interval=None",
    ),
    Row(
        "library_keepalive_races",
        WARNING,
        good(library_keepalive=(60.0, 60.0)),
        "60 s / 60 s",
        "ping_interval=None",
    ),
    Row(
        "close_waits_for_the_dead",
        WARNING,
        good(close_wait_s=10.0, promise_s=None),
        "10 s more",
        "close_timeout 1s",
    ),
    Row("resume_window_above_detection", WARNING, good(resume_window_s=120.0), "120 s", "resume_window 60s"),
    Row(
        "max_sessions_below_load",
        ERROR,
        good(max_sessions=5, expected_sessions=8),
        "8 sessions",
        "max_sessions 8",
    ),
    Row("no_heartbeat_behind_idle_timer", ERROR, beating(interval_s=None), "60 s", "every 30 s", "aws-alb"),
    Row(
        "interval_reaches_idle_timer",
        ERROR,
        beating(interval_s=60.0, idle_limit_s=150.0),
        "equal to",
        "heartbeat_interval 30s",
        "aws-alb",
    ),
    Row(
        "interval_reaches_idle_timer",
        ERROR,
        good(interval_s=300.0, promise_s=None, idle_limit_s=None, status_ttl_s=7200.0),
        "60 + 310 = 370 s",
        "heartbeat_interval 120s",
        "azure-lb",
    ),
    Row(
        "interval_reaches_idle_timer",
        ERROR,
        good(interval_s=400.0, promise_s=None, idle_limit_s=None, status_ttl_s=7200.0),
        "answered with RST",
        "raise the timer to 800 s",
        "aws-nlb",
    ),
    Row(
        "interval_close_to_idle_timer",
        WARNING,
        beating(interval_s=54.0),
        "leaves 6 s",
        "heartbeat_interval 30s",
        "nginx",
    ),
    Row(
        "lifetime_ends_connection", ERROR, good(), "before a dead client is noticed", "3600 s", "gcp-http-lb"
    ),
    Row("lifetime_ends_connection", INFO, good(), "7200 s", "come back", "aws-api-gateway"),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_each_rule_finds_its_fault_and_its_fix_removes_it(row: Row) -> None:
    boxes = [idle_timer_profile(row.box)] if row.box else []
    found = [f for f in lint(row.setting, boxes) if f.rule == row.rule]
    assert len(found) == 1, lint(row.setting, boxes)
    finding = found[0]
    assert finding.severity is row.severity
    assert finding.middlebox == row.box
    assert row.says in f"{finding.message}; {finding.reason}"
    assert row.fix in finding.fix
    if finding.changes:
        mended = replace(row.setting, **finding.changes)
        assert row.rule not in {f.rule for f in lint(mended, boxes)}
    else:
        assert row.rule == "lifetime_ends_connection", "only this fix lies outside the setting"


def test_every_rule_has_a_row() -> None:
    rules = set()
    for path in Path(harness.policy.lint.__file__).parent.glob("rules*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Finding":
                rule = node.args[1]
                assert isinstance(rule, ast.Constant)
                rules.add(rule.value)
    assert rules == {row.rule for row in ROWS}


def test_a_good_policy_has_no_finding() -> None:
    boxes = [b for b in PROFILES.idle_timers if b.lifetime is None]
    assert lint(GOOD, boxes) == []
    policy = LivenessPolicy(
        heartbeat_interval=25.0,
        heartbeat_timeout=10.0,
        max_failures=2,
        session_timeout=120.0,
        sweep_interval=15.0,
        status_ttl=300.0,
        resume_window=10.0,
    )
    assert lint(policy, boxes, Extras(promise_s=60.0)) == []


def test_the_default_policy_only_leaves_ghosts_of_a_dead_node_and_a_lease_ends_them() -> None:
    assert [f.rule for f in lint(LivenessPolicy())] == ["ghosts_outlive_node"]
    assert lint(LivenessPolicy(), extras=Extras(node_lease=True)) == []


def test_the_worst_comes_first() -> None:
    bad = good(status_ttl_s=7200.0, answers_checked=False)
    severities = [f.severity for f in lint(bad, [idle_timer_profile("aws-api-gateway")])]
    assert severities == sorted(severities, key=list(Severity).index)
    assert len(set(severities)) == 3


# For every product the boxes that break it at its defaults; the two with a lifetime break all alike.
BREAKS = {
    "gorilla": {"aws-alb", "nginx"},
    "mqtt": {"aws-alb", "nginx"},
    "wechat": {"aws-alb", "nginx", "azure-lb", "cloudflare", "cellular-carrier", "envoy-http"},
}


@pytest.mark.parametrize("profile", PROFILES.heartbeats, ids=lambda p: p.name)
@pytest.mark.parametrize("box", PROFILES.idle_timers, ids=lambda b: b.name)
def test_every_product_against_every_box(profile: HeartbeatProfile, box: IdleTimerProfile) -> None:
    found = [f for f in lint(profile, [box]) if f.middlebox]
    expected = box.name in BREAKS.get(profile.name, set()) or box.lifetime is not None
    assert bool(found) == expected, found
    for finding in found:
        assert finding.message and finding.reason and finding.fix


@pytest.mark.parametrize(
    ("name", "rules"),
    [
        ("engineio", []),
        ("python-engineio-polling", []),
        ("phoenix", ["page_timed_heartbeat"]),
        ("signalr", ["page_timed_heartbeat"]),
        ("websockets", ["close_waits_for_the_dead"]),
        ("uvicorn", []),
        ("node-ws", []),
        ("mqtt", []),
    ],
)
def test_products_by_themselves(name: str, rules: list[str]) -> None:
    assert [f.rule for f in lint(heartbeat_profile(name))] == rules


def test_a_profiles_range_is_the_settings_range() -> None:
    for profile in PROFILES.heartbeats:
        law, found = profile.law, Setting.of(profile).detection_range_s
        assert (law is None) == (found is None)
        if law is not None:
            assert found == pytest.approx((law.lo_s, law.hi_s))


def test_boxes_for_udp_are_passed_over() -> None:
    slow = good(interval_s=50.0, promise_s=None)
    assert not [f for f in lint(slow, [idle_timer_profile("cgn-fixed-udp")]) if f.middlebox]


def test_a_networks_boxes_are_those_it_names_and_its_own_timer() -> None:
    boxes = middleboxes_of(network_profile("cellular-4min-nat"))
    assert [(b.name, b.idle_timeout) for b in boxes] == [
        ("azure-lb", 240),
        ("cellular-carrier", 255),
        ("cellular-4min-nat", 240),
    ]
    assert len(middleboxes_of(network_profile("data-centre"))) == 1


PRODUCTION = {
    "system": {"max_sessions": 10, "session_timeout": 180},
    "websocket": {"heartbeat_interval": 30, "heartbeat_max_failures": 3},
}
CONSTRAINED = {
    "system": {"max_sessions": 5, "session_timeout": 120},
    "websocket": {"heartbeat_interval": 60, "heartbeat_max_failures": 2},
}


def test_raw_keys_production_is_good_by_itself_and_too_small_for_its_load() -> None:
    setting = setting_of_yaml(PRODUCTION)
    assert setting.detection_range_s == (70.0, 100.0)
    assert lint(setting, [idle_timer_profile("nginx")]) == []
    assert [f.rule for f in lint(setting, extras=Extras(expected_sessions=11))] == ["max_sessions_below_load"]


def test_raw_keys_constrained_never_counts_its_second_failure_and_equals_the_proxys_timer() -> None:
    found = lint(setting_of_yaml(CONSTRAINED), [idle_timer_profile("nginx")])
    assert [f.rule for f in found] == ["interval_reaches_idle_timer", "idle_limit_preempts_heartbeat"]
    assert "equal to" in found[0].message


def test_raw_keys_as_written_only_count_send_errors() -> None:
    found = lint(setting_of_yaml(PRODUCTION), extras=Extras(answers_checked=False))
    assert "send_only_heartbeat" in {f.rule for f in found}


def test_raw_keys_with_units_and_a_part_of_them() -> None:
    setting = setting_of_yaml({"system": {"session_timeout": "5m"}})
    assert (setting.idle_limit_s, setting.interval_s) == (300.0, None)
    quick = setting_of_yaml({"websocket": {"heartbeat_interval": 5}})
    assert quick.timeout_s == 5.0


def test_raw_keys_with_problems_name_them_all() -> None:
    raw = {
        "system": {"session_timeout": -1, "max_session": 5},
        "websocket": {"heartbeat_interval": "soon", "heartbeat_max_failures": 2.5},
        "database": {},
    }
    with pytest.raises(LintInputError) as caught:
        setting_of_yaml(raw, name="config.yaml")
    message = str(caught.value)
    for part in ("config.yaml", "session_timeout: -1", "max_session: unknown", "'soon'", "2.5", "database"):
        assert part in message
    with pytest.raises(LintInputError, match="nothing to check"):
        setting_of_yaml({})


def test_what_is_checked_is_found_by_name_or_file(tmp_path: Path) -> None:
    assert setting_of("phoenix").idle_limit_s == 60.0
    assert setting_of("demo").interval_s == 30.0
    raw = tmp_path / "config.yaml"
    raw.write_text("websocket: {heartbeat_interval: 45}\n")
    assert setting_of(str(raw)).interval_s == 45.0
    scenario = tmp_path / "mine.yaml"
    scenario.write_text("duration: 60s\nliveness: {heartbeat_interval: 20s}\n")
    assert setting_of(str(scenario)).interval_s == 20.0
    with pytest.raises(LintInputError, match=r"nowhere.yaml.*phoenix.*demo"):
        setting_of("nowhere.yaml")
    raw.write_text("a: [")
    with pytest.raises(LintInputError, match="not YAML"):
        setting_of(str(raw))
    raw.write_text("colour: red\n")
    with pytest.raises(ScenarioError, match="colour"):
        setting_of(str(raw))
