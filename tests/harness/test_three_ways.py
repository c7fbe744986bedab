"""Theory, model and real sockets beside each other where healthy clients suffer: small runs, each judged as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest

from harness.run import run
from harness.runs.directory import find_run
from reference_server.errors import Exit
from reports.run_tables import RunTables, load_run
from scenarios.load import parse_scenario
from tests.support import require_silence

pytestmark = [pytest.mark.real, pytest.mark.root, pytest.mark.alone, pytest.mark.timeout(120)]


class Outcome(NamedTuple):
    tables: RunTables
    sound: bool

    def compared(self, milestone: str, left: str = "real", right: str = "theory") -> pd.DataFrame:
        rows = self.tables.table("agreement")
        return rows[(rows["milestone"] == milestone) & (rows["left"] == left) & (rows["right"] == right)]

    def lost(self, engine: str, author: str) -> int:
        rows = self.tables.table("healthy_connections")
        mine = rows[(rows["engine"] == engine) & (rows["outcome"] == "lost") & (rows["author"] == author)]
        return len(mine)


def judged(text: str, folder: Path) -> Outcome:
    """Run all engines; whatever disagrees is an error, but for a run whose own times prove nothing."""
    require_silence()
    code = run(parse_scenario(text), root=folder).exit_code
    tables = load_run(find_run("latest", folder).path)
    sound = code != Exit.UNSOUND
    agreement = tables.table("agreement")
    red = agreement[agreement["verdict"] == "fail"]
    missed = tables.table("detections").query("outcome != 'detected'")
    assert not sound or red.empty, (
        red[["fault", "milestone", "figure", "reason"]].to_string() + missed.to_string()
    )
    return Outcome(tables, sound)


def test_beats_of_clients_that_hide_lag_or_lose_packets(tmp_path: Path) -> None:
    """Hidden: the last beat U(0, 6) ago, the next 40 s later: out after 6 to 13 s. Late by 2 s: nobody is out.

    Until the first fault every beat has its records refreshed, as theory, the model and Redis count it.
    """
    seen = judged(
        "name: beats\nseed: 5\nclients: 60\nramp: 4s\nduration: 64s\nspeedup: 10\n"
        "detector: {kind: client_beats}\nrecords: {refreshed: at_each_frame}\n"
        "liveness: {heartbeat_interval: 6s, session_timeout: 12s, sweep_interval: 1s, resume_window: 0s}\n"
        "faults:\n"
        "  - {kind: throttled_timers, share: 30%, every: 40s, at: {uniform: {low: 34s, high: 40s}}}\n"
        "  - {kind: delayed, share: 20%, by: 2s, at: {uniform: {low: 34s, high: 40s}}}\n"
        "  - {kind: packet_loss, share: 20%, rate: 50%, at: {uniform: {low: 34s, high: 40s}}}\n",
        tmp_path,
    )
    found = seen.tables.table("detections")
    found = found[found["milestone"] == "suspected"]
    for engine in ("simulated", "real"):
        mine = found[found["engine"] == engine]
        hidden = mine[mine["fault"] == "throttled_timers"]
        assert len(hidden) == 18 and set(hidden["outcome"]) == {"detected"}, hidden.to_string()
        delayed = set(mine.loc[mine["fault"] == "delayed", "outcome"])
        assert delayed == {"censored"} or (delayed <= {"censored", "detected"} and not seen.sound)
    assert len(seen.compared("suspected"))
    for engine in ("simulated", "real"):
        (row,) = seen.compared("refreshed", engine).itertuples()
        assert row.left_s == pytest.approx(row.right_s, rel=0.15), row.reason


def test_application_traffic_starves_answers_in_every_engine(tmp_path: Path) -> None:
    """Two seconds of work a second: a pong due at t is read at about 2t, and only pongs count.

    Those who come back wait for a dozen turns of the loop, each as long as the work of all who are there, and are
    accepted one in a turn; a model whose handshakes take one turn loses 36 where each engine loses 15.
    """
    seen = judged(
        "name: starved\nclients: 20\nramp: 500ms\nduration: 8s\n"
        "liveness: {heartbeat_interval: 1s, heartbeat_timeout: 1s, max_failures: 1, "
        "session_timeout: null, data_counts: false}\n"
        "traffic: {to_gateway: {every: 100ms, bytes: 200}, service: 10ms}\n"
        "thresholds: [healthy.losses.count > 5]\n",
        tmp_path,
    )
    assert 10 < seen.lost("simulated", "gateway") < 25
    assert seen.lost("real", "gateway") > 10, "more where others keep the processors from this loop, too"
    rows = seen.compared("lost_by_heartbeat", "real", "simulated")
    assert len(rows) == 1
    assert set(seen.compared("lost")["verdict"]) <= {"unknown"}, "theory withholds itself"


def test_a_drain_over_a_window_is_spread_in_every_engine(tmp_path: Path) -> None:
    """20 s for the clients of one of two nodes: the n-th of N closes at n/N of it."""
    seen = judged(
        "name: drained\nclients: 60\nramp: 4s\nduration: 45s\nspeedup: 10\ngateway: {nodes: 2}\n"
        "liveness: {heartbeat_interval: 10s, heartbeat_timeout: 5s}\n"
        "incidents: [{kind: node_drain, at: 12s, spread: 20s}]\n",
        tmp_path,
    )
    rows = seen.tables.table("healthy_connections")
    for engine in ("simulated", "real"):
        sent_away = rows[(rows["engine"] == engine) & (rows["author"] == "drain")]
        at_s = (sent_away["connected_s"] + sent_away["watched_s"]).sort_values().to_numpy()
        assert len(at_s) >= 20, engine
        assert 15 < at_s[-1] - at_s[0] < 25
        middle = len(at_s[(at_s > at_s[0] + 5) & (at_s < at_s[0] + 15)])
        assert 0.3 * len(at_s) < middle < 0.7 * len(at_s), "half of them in the middle half"
