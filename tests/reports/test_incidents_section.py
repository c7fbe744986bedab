"""The report's section about incidents: only where there were any, and shown as judged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reports.run_tables import frame, load_run
from reports.sections.incidents import incidents_section
from tests.reports.handmade_run import Fault, handmade_run

NAN = np.nan
ONE = {"host_crash": Fault(8, "heartbeat", 70, 100)}


def section(folder: Path, agrees_s: float, in_time: str) -> list[str]:
    run = handmade_run(ONE)
    row = (
        "real",
        "node_crash",
        "node_crash",
        "node-2",
        True,
        110.0,
        NAN,
        100.0,
        88,
        88,
        88,
        0,
        0.5,
        1.0,
        1.2,
        18.4,
        agrees_s,
        agrees_s,
        0.25,
        0,
        20.0,
        in_time,
    )
    run.tables["incidents"] = frame("incidents", [row])
    (found,) = incidents_section(load_run(run.write(folder)))
    (table,) = found.blocks
    return [cell.text for cell in table.rows[0]]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("agrees_s", "in_time", "shown"),
    [(18.6, "pass", "✓ pass"), (NAN, "fail", "✗ fail"), (NAN, "unknown", "? unknown")],
)
def test_whether_it_was_in_time_is_shown_as_it_was_judged(
    tmp_path: Path, agrees_s: float, in_time: str, shown: str
) -> None:
    texts = section(tmp_path, agrees_s, in_time)
    assert shown in texts
    assert ("not by the end" in texts) == np.isnan(agrees_s)


def test_a_run_in_which_nothing_happened_has_no_such_section(tmp_path: Path) -> None:
    assert incidents_section(load_run(handmade_run(ONE).write(tmp_path))) == []
