"""One real step of the load: what it took, by those who can see it."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.studies.capacity.steps import run_step
from scenarios.load import parse_scenario

pytestmark = [pytest.mark.real, pytest.mark.alone, pytest.mark.timeout(120)]

TEXT = """
name: step
ramp: 10s
duration: 35s
speedup: 10
liveness: {heartbeat_interval: 6s, heartbeat_timeout: 2s, max_failures: 3, resume_window: 4s}
faults: [{kind: frozen, share: 10%, at: {uniform: {low: 8s, high: 10s}}}]
thresholds: [false_suspicions.count == 0, handshake.max < 10s, heartbeat_lateness.max < 10s]
"""


def test_a_real_step_is_measured_by_its_witnesses(tmp_path: Path) -> None:
    """60 clients at T = 0.6 s of real time on two nodes."""
    step = run_step(parse_scenario(TEXT), clients=60, nodes=2, real=True, root=tmp_path)
    assert "did not run" not in step.limit, step
    assert not step.missed, step
    assert step.holds or not step.sound, step
    if step.sound:
        # Every client but the frozen ones, once in T; counted by the second, so an edge may be missing.
        assert step.heartbeats_per_s == pytest.approx(60 / 0.6, rel=0.2), step
    assert 0 < step.handshake_p99_s < 10
    assert step.cpu_percent > step.cpu_percent_busiest > 0, step
    assert step.rss_bytes > 40 * 2**20, "two processes"
    # The ramp less its heartbeats, a difference: with 60 clients on a busy machine it may be none.
    assert 0 <= step.login_core_s < 0.05, step
    # A login, an authentication, an end: each a script of a few commands.
    assert 3 < step.commands_per_session < 60, step
    assert step.store_bytes_per_session > 100, step
