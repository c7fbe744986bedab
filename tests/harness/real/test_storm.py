"""A reconnect storm for real: the kernel aborts every client's socket, and all come back to their sessions."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from harness.run import run
from harness.runs.directory import find_run
from scenarios.load import parse_scenario
from tests.support import require_root

pytestmark = [pytest.mark.real, pytest.mark.root, pytest.mark.alone, pytest.mark.timeout(120)]

TEXT = """
name: storm
clients: 40
ramp: 10s
duration: 25s
speedup: 10
liveness: {heartbeat_interval: 6s, heartbeat_timeout: 2s, max_failures: 3, resume_window: 20s}
reconnect: {backoff_base: 2s, backoff_max: 4s}
gateway: {nodes: 2}
incidents: [{kind: reconnect_storm, at: 5s}]
"""


def test_all_are_reset_and_all_come_back(tmp_path: Path) -> None:
    require_root()
    run(parse_scenario(TEXT), root=tmp_path)
    folder = find_run("latest", tmp_path).path
    table = pd.read_csv(folder / "incidents.csv").set_index("engine")
    for engine in ("simulated", "real"):
        row = table.loc[engine]
        assert row["kind"] == "reconnect_storm"
        assert row["clients_hit"] == row["clients_lost"] == row["clients_back"] == 40, row
        assert row["false_suspicions"] == 0
