"""What lint says of the cases from practice in `tests/cases` and of the built-in scenarios: no good one is an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.policy.lint import Report, Severity, lint
from harness.policy.lint.sources import subject_of
from scenarios.load import built_in

CASES = Path(__file__).parents[2] / "cases"


def report_of(name: str) -> Report:
    subject = subject_of(str(CASES / f"{name}.yaml") if (CASES / f"{name}.yaml").exists() else name)
    assert subject.what is not None
    return lint(subject.what, subject.boxes)


@pytest.mark.parametrize(
    ("case", "rule", "severity", "says"),
    [
        ("send_only_every_3s", "send_only_heartbeat", "error", "the bound is TCP's: 933.6 to 936.6 s"),
        ("send_only_every_3s", "send_only_heartbeat", "error", "max_failures 1 has no part in it"),
        ("kernel_keepalive_alone", "only_the_kernel_notices", "warning", "after 3 to 6 s"),
        ("presence_written_once", "record_never_refreshed", "error", "120 s"),
        ("presence_written_once_status", "record_never_refreshed", "error", "status_ttl 120 s"),
        ("presence_by_ttl_alone", "only_ttl_notices", "warning", "after 30 to 45 s"),
        ("client_beats_hidden_tab", "page_timed_heartbeat", "error", "healthy hidden tabs are dropped"),
        ("client_beats_hidden_tab_in_time", "page_timed_heartbeat", "warning", "0 s are left"),
        ("ping_equals_idle_timer", "interval_reaches_idle_timer", "error", "equal to the idle timer"),
        ("application_traffic", "loop_overloaded", "error", "2 s of work a second"),
        ("fixed_reconnect_delay", "reconnect_herd", "warning", "all 1000 clients"),
        ("a_write_a_beat", "refreshed_at_each_frame", "info", "133 times a second"),
    ],
)
def test_a_case_from_practice(case: str, rule: str, severity: str, says: str) -> None:
    found = [f for f in report_of(case).findings if f.rule == rule]
    assert [f.severity.value for f in found][:1] == [severity]
    assert any(says in f"{f.message}; {f.reason}" for f in found)


def test_a_lease_bounds_the_ghosts_of_a_crashed_node() -> None:
    report = report_of("node_crash")
    assert not report.findings
    assert any("ghosts for at most 20 s" in line and "its peers" in line for line in report.checked)
    assert not any("7200 s" in f"{f.message} {f.reason}" for f in report.findings)


@pytest.mark.parametrize(
    "case",
    ["client_beats_within_idle_limit", "watchers_have_outages", "login_later_than_the_run", *built_in()],
)
def test_a_good_design_is_no_error(case: str) -> None:
    errors = [f for f in report_of(case).findings if f.severity is Severity.ERROR]
    assert not errors
