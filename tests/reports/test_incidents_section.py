"""The report's section about incidents: only where there were any, and what counts as in time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reports.run_tables import frame, load_run
from reports.sections.incidents import incidents_section
from tests.reports.handmade_run import Fault, handmade_run

NAN = np.nan
ONE = {"host_crash": Fault(8, "heartbeat", 70, 100)}


def section(
    folder: Path, agrees_s: float, bound_s: float = 20.0, watched_s: float = 100.0
) -> list[str]:
    run = handmade_run(ONE)
    row = (
        "real", "node_crash", "node_crash", "node-2", 110.0, NAN, watched_s, 88, 88, 88, 0, 0.5, 1.0, 1.2,
        18.4, agrees_s, agrees_s, 0.25, 0, bound_s,
    )  # fmt: skip
    run.tables["incidents"] = frame("incidents", [row])
    run.summary["epsilon_s"] = 0.3
    (found,) = incidents_section(load_run(run.write(folder)))
    (table,) = found.blocks
    return [cell.text for cell in table.rows[0]]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("agrees_s", "watched_s", "verdict"),
    [
        (18.6, 100.0, "✓ pass"),
        (20.5, 100.0, "✓ pass"),  # by ε, and by the width of the look
        (20.6, 100.0, "✗ fail"),
        (NAN, 100.0, "✗ fail"),  # never, though watched for longer than the bound
        (NAN, 20.0, "? unknown"),  # the run ended first
    ],
)
def test_in_time_is_the_bound_and_what_the_measurement_may_be_off(
    tmp_path: Path, agrees_s: float, watched_s: float, verdict: str
) -> None:
    texts = section(tmp_path, agrees_s, watched_s=watched_s)
    assert verdict in texts
    assert ("not by the end" in texts) == np.isnan(agrees_s)


def test_a_run_in_which_nothing_happened_has_no_such_section(tmp_path: Path) -> None:
    assert incidents_section(load_run(handmade_run(ONE).write(tmp_path))) == []
