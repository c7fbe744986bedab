"""One row a rule: what it finds, how bad, and that its own fix makes it go away."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import harness.policy.lint
from harness.policy.lint import Extras, Setting, Severity, lint
from harness.policy.lint.sources import LintInputError, boxes_behind, combined, setting_of_yaml, subject_of
from harness.policy.profiles import (
    HeartbeatProfile,
    IdleTimerProfile,
    heartbeat_profile,
    idle_timer_profile,
    load_profiles,
    middleboxes_of,
    network_profile,
)
from reference_server.liveness.heartbeat_policy import LivenessPolicy, TcpKeepalive
from scenarios.client_rules import Reconnect, Traffic, TrafficOneWay
from scenarios.distributions import Distribution
from scenarios.gateway import Gateway, Stalls
from scenarios.load import ScenarioError
from scenarios.network import Network, Outages
from scenarios.schema import Scenario

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


def client_beats() -> Setting:
    return Setting(
        name="beats", interval_s=15.0, beats_from="client", status_ttl_s=45.0, refreshed="at_each_frame"
    )


KERNEL_ALONE = Setting(
    name="kernel", keepalive=TcpKeepalive(idle=3.0, interval=1.0, count=3), status_ttl_s=7200.0
)
OPEN_SOCKETS = replace(GOOD, refreshed="by_the_keepalive", answers_checked=False)
SLOW = Network(round_trip=Distribution(constant=12.0))
AWAY = Network(outages=Outages(every=3600.0, length=Distribution(constant=60.0)))
STALLED = Gateway(stalls=Stalls(every=600.0, length=Distribution(constant=12.0)))
BUSY = Gateway(heartbeat_service=Distribution(constant=0.03))
WORK = Traffic(
    to_gateway=TrafficOneWay(every=Distribution(constant=0.1)), service=Distribution(constant=0.01)
)
KEEPALIVE = TcpKeepalive(idle=3.0, interval=1.0, count=3)

ROWS = [
    Row("nothing_detects", ERROR, Setting(name="bare"), "924.6 s", "heartbeat_interval 25s"),
    Row(
        "only_the_kernel_notices", WARNING, Setting(name="k", keepalive=KEEPALIVE), "3 to 6 s", "interval 25s"
    ),
    Row("only_ttl_notices", WARNING, client_beats(), "30 to 45 s", "session_timeout 40s"),
    Row(
        "send_only_heartbeat", ERROR, good(answers_checked=False), "max_failures 2 has no part", "kind: ping"
    ),
    Row("pings_overlap", INFO, good(timeout_s=40.0, promise_s=None), "65 to 90 s", "none is needed"),
    Row("retry_below_timeout", ERROR, good(retry_s=5.0), "5 s", "retry_interval 10s"),
    Row(
        "retry_with_overlapping_pings",
        ERROR,
        good(timeout_s=40.0, retry_s=45.0, promise_s=None),
        "nothing to retry",
        "retry_interval null",
    ),
    Row("idle_limit_without_heartbeat", ERROR, beating(interval_s=None), "60 s", "heartbeat_interval 20s"),
    Row("idle_limit_below_interval", ERROR, good(idle_limit_s=25.0), "25 s", "session_timeout 90s"),
    Row("idle_limit_below_interval", ERROR, beating(idle_limit_s=20.0), "20 s", "session_timeout 50s"),
    Row("idle_limit_preempts_heartbeat", WARNING, good(idle_limit_s=50.0), "10 s before the last", "90s"),
    Row(
        "sweep_coarser_than_promise", ERROR, beating(sweep_s=300.0, promise_s=70.0), "360 s", "sweep_interval"
    ),
    Row("sweep_coarser_than_limit", WARNING, good(sweep_s=300.0), "420 s", "sweep_interval 30s"),
    Row("promise_missed", ERROR, good(max_failures=3), "85 s", "heartbeat_interval 16s"),
    Row("promise_missed", ERROR, good(promise_s=6.0), "60 s", "heartbeat_interval 3s"),
    Row("promise_missed", ERROR, beating(promise_s=20.0), "60 s", "session_timeout 20s"),
    Row("record_never_refreshed", ERROR, good(refreshed="never"), "online and not shown", "when_half_gone"),
    Row("record_never_refreshed", WARNING, KERNEL_ALONE, "every quiet client", "heartbeats"),
    Row("ttl_below_refresh", ERROR, good(status_ttl_s=45.0), "45 s", "status_ttl 120s"),
    Row("ttl_below_refresh", ERROR, good(session_ttl_s=45.0), "45 s", "session_ttl 120s"),
    Row("ttl_below_detection", ERROR, good(status_ttl_s=55.0), "55 s", "status_ttl 120s"),
    Row("ghosts_outlive_node", WARNING, good(status_ttl_s=7200.0), "7200 s", "status_ttl 120s"),
    Row("records_never_expire", ERROR, good(records_expire=False), "for ever", "records.expire true"),
    Row(
        "online_set_without_expiry",
        ERROR,
        good(plain_online_set=True),
        "for ever",
        "records.online_set: scored",
    ),
    Row("refreshed_past_death", ERROR, OPEN_SOCKETS, "924.6 s", "inbound frame"),
    Row(
        "refreshed_at_each_frame",
        INFO,
        good(refreshed="at_each_frame", expected_sessions=4000),
        "160",
        "half",
    ),
    Row("online_by_login_alone", WARNING, good(written_at_login=True), "300 s", "at_connect"),
    Row("flush_at_start", ERROR, good(flush_at_start=True), "restart", "leases"),
    Row("second_login_refused", INFO, good(second_login="refuse"), "60 s", "take_over"),
    Row("page_timed_heartbeat", ERROR, beating(timed_by_page=True), "85 s", "session_timeout 145s"),
    Row("page_timed_heartbeat", WARNING, beating(timed_by_page=True, idle_limit_s=90.0), "5 s", "145s"),
    Row("page_timed_answers", ERROR, good(answers_by_page_timer=True, promise_s=None), "60 s", "timeout 90s"),
    Row(
        "library_keepalive_races",
        ERROR,
        good(library_keepalive=(20.0, 20.0)),
        "20 s / 20 s",
        "ping_interval=None",
    ),
    Row("library_keepalive_races", WARNING, good(library_keepalive=(60.0, 60.0)), "60 s / 60 s", "=None"),
    Row(
        "close_waits_for_the_dead",
        WARNING,
        good(close_wait_s=10.0, promise_s=None),
        "10 s more",
        "timeout 1s",
    ),
    Row(
        "user_timeout_preempts_heartbeat",
        WARNING,
        good(user_timeout_s=5.0),
        "5 to 30 s",
        "tcp_user_timeout 75s",
    ),
    Row("keepalive_never_sent", INFO, good(keepalive=TcpKeepalive()), "25 s", "none is needed"),
    Row("closes_not_acted_on", WARNING, good(close_detection="frames"), "FIN", "close_detection all"),
    Row("resume_window_above_detection", WARNING, good(resume_window_s=120.0), "120 s", "resume_window 60s"),
    Row(
        "resume_window_below_page_load",
        WARNING,
        good(resume_window_s=0.0, page_load=Reconnect().page_load),
        "0%",
        "resume_window 3s",
    ),
    Row(
        "max_sessions_below_load",
        ERROR,
        good(max_sessions=5, expected_sessions=8),
        "8 sessions",
        "max_sessions 8",
    ),
    Row(
        "timeout_below_round_trip", ERROR, good(network=SLOW, promise_s=None), "10 s", "heartbeat_timeout 18s"
    ),
    Row("outages_outlast_patience", WARNING, good(network=AWAY), "times a day", "flatline tune"),
    Row("client_limit_below_interval", ERROR, good(client_idle_limit_s=20.0), "every 25 s", "idle_limit 65s"),
    Row("client_limit_below_interval", WARNING, good(client_idle_limit_s=26.0), "26 s", "idle_limit 65s"),
    Row("reconnect_herd", WARNING, good(reconnect=Reconnect(jitter="none")), "1 s later", "jitter: full"),
    Row("loop_overloaded", ERROR, good(gateway=BUSY, expected_sessions=1000), "1.2 s of work", "2 nodes"),
    Row(
        "loop_overloaded",
        ERROR,
        good(gateway=Gateway(), traffic=WORK, expected_sessions=20),
        "2 s",
        "3 nodes",
    ),
    Row("stall_outlasts_lease", WARNING, good(gateway=STALLED, lease_s=20.0), "12 s", "lease"),
    Row("no_heartbeat_behind_idle_timer", ERROR, Setting(name="bare"), "60 s", "interval 25s", "aws-alb"),
    Row("heartbeat_needed", INFO, Setting.unknown("nginx.conf"), "60 s", "every 30 s", "nginx"),
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
        "interval 30s",
        "nginx",
    ),
    Row(
        "lifetime_ends_connection", ERROR, good(), "before a dead client is noticed", "3600 s", "gcp-http-lb"
    ),
    Row("lifetime_ends_connection", INFO, good(), "7200 s", "come back", "aws-api-gateway"),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_each_rule_finds_its_fault_and_the_fixes_together_remove_it(row: Row) -> None:
    boxes = [idle_timer_profile(row.box)] if row.box else []
    report = lint(row.setting, boxes)
    found = [f for f in report.findings if f.rule == row.rule]
    assert found, report.findings
    finding = found[0]
    assert finding.severity is row.severity
    assert finding.middlebox == row.box
    assert row.says in f"{finding.message}; {finding.reason}"
    assert row.fix in finding.fix
    if finding.changes:
        assert row.rule not in {f.rule for f in lint(report.mended, boxes).findings if f.changes}


def test_every_rule_has_a_row() -> None:
    rules = set()
    for path in Path(harness.policy.lint.__file__).parent.glob("*rules.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Finding":
                rule = node.args[1]
                assert isinstance(rule, ast.Constant)
                rules.add(rule.value)
    assert rules == {row.rule for row in ROWS}


def test_a_good_policy_has_no_finding() -> None:
    boxes = [b for b in PROFILES.idle_timers if b.lifetime is None]
    assert lint(GOOD, boxes).findings == ()
    policy = LivenessPolicy(
        heartbeat_interval=25.0,
        heartbeat_timeout=10.0,
        max_failures=2,
        session_timeout=120.0,
        sweep_interval=15.0,
        status_ttl=300.0,
        resume_window=10.0,
    )
    assert lint(policy, boxes, Extras(promise_s=60.0)).findings == ()


def test_the_default_policy_only_leaves_ghosts_of_a_dead_node_and_a_lease_ends_them() -> None:
    assert [f.rule for f in lint(LivenessPolicy()).findings] == ["ghosts_outlive_node"]
    assert lint(LivenessPolicy(), extras=Extras(lease_s=20.0)).findings == ()


def test_the_worst_comes_first() -> None:
    bad = good(status_ttl_s=7200.0, answers_checked=False)
    severities = [f.severity for f in lint(bad, [idle_timer_profile("aws-api-gateway")]).findings]
    assert severities == sorted(severities, key=list(Severity).index)
    assert len(set(severities)) == 3


# Seconds from one heartbeat of a product to the next; boxes with a timer of up to 1/0.9 of that break it, those with a
# lifetime break all alike.
HEARTBEATS = {
    **dict.fromkeys(("engineio", "python-engineio", "python-engineio-polling", "centrifugo"), 25.0),
    **dict.fromkeys(("phoenix", "aiohttp", "node-ws", "rabbitmq"), 30.0),
    **dict.fromkeys(("signalr", "deno"), 15.0),
    **dict.fromkeys(("websockets", "uvicorn", "daphne", "channels-redis", "hypercorn"), 20.0),
    **dict.fromkeys(("mqtt", "mosquitto", "rabbitmq-mqtt", "ejabberd"), 60.0),
    "gorilla": 54.0,
    "bun": 104.0,
    "graphql-ws": 12.0,
    "prosody": 840.0,
    "actioncable": 3.0,
    "discord": 41.25,
    "wechat": 270.0,
    "granian": float("inf"),
}


@pytest.mark.parametrize("profile", PROFILES.heartbeats, ids=lambda p: p.name)
@pytest.mark.parametrize("box", PROFILES.idle_timers, ids=lambda b: b.name)
def test_every_product_against_every_box(profile: HeartbeatProfile, box: IdleTimerProfile) -> None:
    found = [f for f in lint(profile, [box]).findings if f.middlebox]
    gap_s = HEARTBEATS[profile.name]
    reaches = box.idle_timeout is not None and box.transport == "tcp" and gap_s >= 0.9 * box.idle_timeout
    expected = reaches or box.lifetime is not None
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
    assert [f.rule for f in lint(heartbeat_profile(name)).findings] == rules


def test_a_profiles_range_is_the_settings_range() -> None:
    for profile in PROFILES.heartbeats:
        law, found = profile.law, Setting.of(profile).layers.get("heartbeat") or Setting.of(profile).detection
        assert (law is None) == (found is None)
        if law is not None:
            assert found == pytest.approx((law.lo_s, law.hi_s))


def test_boxes_for_udp_are_passed_over() -> None:
    slow = good(interval_s=50.0, promise_s=None)
    assert not [f for f in lint(slow, [idle_timer_profile("cgn-fixed-udp")]).findings if f.middlebox]


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
    assert setting.detection == (70.0, 100.0)
    assert lint(setting, [idle_timer_profile("nginx")]).findings == ()
    assert [f.rule for f in lint(setting, extras=Extras(expected_sessions=11)).findings] == [
        "max_sessions_below_load"
    ]


def test_raw_keys_constrained_never_counts_its_second_failure_and_equals_the_proxys_timer() -> None:
    found = lint(setting_of_yaml(CONSTRAINED), [idle_timer_profile("nginx")]).findings
    assert [f.rule for f in found] == ["interval_reaches_idle_timer", "idle_limit_preempts_heartbeat"]
    assert "equal to" in found[0].message


def test_raw_keys_as_written_only_count_send_errors() -> None:
    found = lint(setting_of_yaml(PRODUCTION), extras=Extras(answers_checked=False)).findings
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


def checked(name: str) -> Setting:
    what = subject_of(name).what
    assert what is not None
    return Setting.of(what)


def test_what_is_checked_is_found_by_name_or_file(tmp_path: Path) -> None:
    assert checked("phoenix").idle_limit_s == 60.0
    assert checked("demo").interval_s == 30.0
    raw = tmp_path / "config.yaml"
    raw.write_text("websocket: {heartbeat_interval: 45}\n")
    assert checked(str(raw)).interval_s == 45.0
    scenario = tmp_path / "mine.yaml"
    scenario.write_text("duration: 60s\nliveness: {heartbeat_interval: 20s}\n")
    assert checked(str(scenario)).interval_s == 20.0
    scenario.write_text("liveness: {heartbeat_interval: 21s}\nnetwork: {max_age: 1h}\n")
    assert checked(str(scenario)).interval_s == 21.0
    with pytest.raises(LintInputError, match=r"nowhere.yaml.*phoenix.*demo"):
        subject_of("nowhere.yaml")
    raw.write_text("a: [")
    with pytest.raises(LintInputError, match="not YAML"):
        subject_of(str(raw))
    raw.write_text("- 1\n")
    with pytest.raises(LintInputError, match="no key of"):
        subject_of(str(raw))
    raw.write_text("colour: red\n")
    with pytest.raises(ScenarioError, match="colour"):
        subject_of(str(raw))


@pytest.mark.parametrize(
    ("text", "interval_s", "timeout_s"),
    [
        ("heartbeat_interval: 25s\n", 25.0, 10.0),
        ("heartbeat_interval: 25\nheartbeat_timeout: 5\n", 25.0, 5.0),
        ("pingInterval: 30000\npingTimeout: 10000\n", 30.0, 10.0),
        ('{"pingTimeout": 5000}', 25.0, 5.0),
        (
            "new Server(http, {\n  // pingInterval: 1,\n  pingInterval: 60 * 1000,\n  pingTimeout: 20_000 });",
            60.0,
            20.0,
        ),
        ("uvicorn app:app --ws-ping-interval 15 --ws-ping-timeout 12", 15.0, 12.0),
        ("serve(handler, ping_interval=10, ping_timeout=8, close_timeout=2)", 10.0, 8.0),
        ("import socketio\nsocketio.AsyncServer(ping_timeout=9)", 25.0, 9.0),
        ("WebSocketResponse(heartbeat=30.0)", 30.0, 15.0),
        ("HEARTBEAT_S = 20\nWebSocketResponse(heartbeat=HEARTBEAT_S)", 20.0, 10.0),
    ],
)
def test_a_bare_policy_and_other_products_own_keys(
    tmp_path: Path, text: str, interval_s: float, timeout_s: float
) -> None:
    file = tmp_path / "given.txt"
    file.write_text(text)
    found = checked(str(file))
    assert (found.interval_s, found.timeout_s) == (interval_s, timeout_s)


def test_a_bare_policy_with_problems_names_them_all(tmp_path: Path) -> None:
    file = tmp_path / "bare.yaml"
    file.write_text("heartbeat_interval: soon\nmax_failures: 0\n")
    with pytest.raises(LintInputError, match=r"heartbeat_interval: 'soon'.*max_failures"):
        subject_of(str(file))


def test_a_retry_before_its_deadline_is_a_finding_of_a_bare_policy(tmp_path: Path) -> None:
    file = tmp_path / "bare.yaml"
    file.write_text("heartbeat_interval: 25s\nretry_interval: 5s\n")
    assert "retry_below_timeout" in {f.rule for f in lint(checked(str(file))).findings}


@pytest.mark.parametrize(
    ("text", "idle_s", "counts"),
    [
        (
            "location / { proxy_pass http://up;\n# proxy_read_timeout 5s;\nproxy_read_timeout 75s; }",
            75.0,
            "to_client",
        ),
        ("location / {\n proxy_pass http://up;\n}", 60.0, "to_client"),
        ("a { proxy_read_timeout 1h; } b { proxy_read_timeout 2m; }", 120.0, "to_client"),
        ('nginx.ingress.kubernetes.io/proxy-read-timeout: "3600"', 3600.0, "to_client"),
        ("defaults\n  timeout client 50000\n  timeout server 40s\n", 40.0, "any"),
        ("defaults\n  timeout client 50000\n  timeout tunnel 1h\n", 3600.0, "any"),
        ("ProxyPass /ws ws://up/\nProxyTimeout 90\n", 90.0, "any"),
        ("stream_idle_timeout: 300s", 300.0, "any"),
    ],
)
def test_the_timer_of_a_proxys_own_file(tmp_path: Path, text: str, idle_s: float, counts: str) -> None:
    file = tmp_path / "proxy.conf"
    file.write_text(text)
    for boxes in (subject_of(str(file)).boxes, boxes_behind(str(file))):
        (box,) = boxes
        assert (box.idle_timeout, box.counts) == (idle_s, counts)


def test_a_server_and_its_proxy_are_checked_together(tmp_path: Path) -> None:
    server, proxy = tmp_path / "server.js", tmp_path / "nginx.conf"
    server.write_text("pingInterval: 60000")
    proxy.write_text("proxy_read_timeout 60s;")
    both = combined(map(subject_of, (str(proxy), str(server))))
    assert isinstance(both.what, Setting)
    (finding,) = lint(both.what, both.boxes).findings
    assert finding.rule == "interval_reaches_idle_timer" and finding.fix.endswith("pingInterval 30000")
    with pytest.raises(LintInputError, match="each says how silence is noticed"):
        combined(map(subject_of, (str(server), "phoenix")))


@pytest.mark.parametrize(
    ("text", "idle_s", "expiry", "counts"),
    [
        ("50s", 50.0, "close", "any"),
        ("2m:reset", 120.0, "reset", "any"),
        ("50s:drop:data", 50.0, "drop", "data"),
        ("nginx=75s", 75.0, "close", "to_client"),
        ("haproxy", 50.0, "close", "any"),
        ("heroku", 55.0, "close", "any"),
        ("traefik", 180.0, "close", "any"),
        ("apache", 60.0, "close", "any"),
        ("caddy", None, "close", "any"),
    ],
)
def test_what_behind_takes(text: str, idle_s: float | None, expiry: str, counts: str) -> None:
    (box,) = boxes_behind(text)
    assert (box.idle_timeout, box.expiry, box.counts) == (idle_s, expiry, counts)


@pytest.mark.parametrize("text", ["50", "0s", "50s:sideways", "nginx=soon"])
def test_what_behind_does_not_take(text: str) -> None:
    with pytest.raises(LintInputError, match="--behind"):
        boxes_behind(text)


NEAR = Network(round_trip=Distribution(constant=0.1))


@pytest.mark.parametrize(
    ("counts", "at", "frame", "severity"),
    [
        ("any", "client", "json", ERROR),  # a gap of exactly T
        ("any", "gateway", "json", WARNING),  # T less a round trip: nobody is lost, by a hair
        ("to_client", "gateway", "json", ERROR),
        ("data", "gateway", "json", WARNING),
        ("data", "gateway", "ping", ERROR),  # a protocol ping is no data
    ],
)
def test_what_a_box_counts_and_where_it_stands(counts: str, at: str, frame: str, severity: Severity) -> None:
    scenario = Scenario.model_validate(
        {
            "name": "equal",
            "duration": "10m",
            "liveness": {"heartbeat_interval": "60s"},
            "detector": {"kind": "ping", "frame": frame},
            "network": {"round_trip": "100ms", "nat": {"idle_timeout": "60s", "counts": counts, "at": at}},
        }
    )
    found = [f for f in lint(scenario).findings if f.middlebox == "nat"]
    assert [f.severity for f in found] == [severity]


def test_application_traffic_keeps_a_connection_open() -> None:
    talks = Traffic(to_client=TrafficOneWay(every=Distribution(constant=20.0)))
    quiet = Setting(name="quiet", traffic=talks)
    assert not [f for f in lint(quiet, boxes_behind("60s")).findings if f.middlebox]
    assert [f for f in lint(quiet, boxes_behind("60s:close:to_gateway")).findings if f.middlebox]


TIMES = st.floats(min_value=0.5, max_value=4000.0).map(lambda s: round(s, 1))


@given(
    st.builds(
        Setting,
        name=st.just("any"),
        interval_s=st.none() | TIMES,
        timeout_s=st.none() | TIMES,
        max_failures=st.integers(1, 6),
        retry_s=st.none() | TIMES,
        beats_from=st.sampled_from(["gateway", "client"]),
        answers_checked=st.booleans(),
        idle_limit_s=st.none() | TIMES,
        sweep_s=st.just(0.0) | TIMES,
        close_wait_s=st.just(0.0) | TIMES,
        user_timeout_s=st.none() | TIMES,
        status_ttl_s=st.none() | TIMES,
        session_ttl_s=st.none() | TIMES,
        refreshed=st.sampled_from(["when_half_gone", "at_each_frame", "never"]),
        resume_window_s=st.none() | TIMES,
        timed_by_page=st.booleans(),
        client_idle_limit_s=st.none() | TIMES,
        promise_s=st.none() | TIMES,
    ),
    st.none() | TIMES,
)
def test_no_range_is_negative_and_no_two_fixes_contradict_each_other(
    setting: Setting, idle_s: float | None
) -> None:
    boxes = [] if idle_s is None else boxes_behind(f"{idle_s}s")
    report = lint(setting, boxes)
    for bounds in (*setting.layers.values(), *report.mended.layers.values()):
        assert 0 <= bounds.lo_s <= bounds.hi_s
    said: dict[str, str] = {}
    for finding in report.findings:
        assert " -" not in f"{finding.message} {finding.reason} {finding.fix}"
        for key, value in re.findall(
            r"\b([a-z_.]+) (\d[\d.]*s?|null)(?=,|$)", finding.fix.partition(": ")[2]
        ):
            assert said.setdefault(key, value) == value
    left = [f for f in lint(report.mended, boxes).findings if f.changes]
    clashes = [f for f in report.findings if "no value alone does so" in f.fix]
    assert not left or clashes, left


def test_what_no_value_can_keep_together_is_said() -> None:
    report = lint(heartbeat_profile("phoenix"), extras=Extras(promise_s=20.0))
    fixes = {f.rule: f.fix for f in report.findings}
    assert "no value alone does so without page_timed_heartbeat" in fixes["promise_missed"]
    assert "let the server ping" in fixes["page_timed_heartbeat"]
