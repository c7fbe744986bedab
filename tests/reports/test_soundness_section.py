"""The report's section about soundness: ε's parts by their own names, and when they count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reports.page import Text
from reports.run_tables import load_run
from reports.sections.soundness import soundness_section
from tests.reports.handmade_run import Fault, handmade_run

ONE = {"host_crash": Fault(8, "heartbeat", 70, 100)}
TARGET = {"gateway_lag_s": None, "canary_s": 0.011, "observer_lag_s": 0.0175}


def sentence(folder: Path, **parts: Any) -> str:
    run = handmade_run(ONE)
    run.summary["epsilon_parts"] |= parts
    section = soundness_section(load_run(run.write(folder)), {})
    (found,) = (b.text for b in section.blocks if isinstance(b, Text) and b.text.startswith("ε ="))
    return found.replace("\u00a0", " ")


def test_lag_is_named_after_whose_it_is(tmp_path: Path) -> None:
    ours = sentence(tmp_path / "ours")
    assert "gateway’s largest loop lag 30.0 ms" in ours
    assert "of two lags the larger" in ours
    target = sentence(tmp_path / "target", **TARGET)
    assert "gateway" not in target
    assert "a canary client’s longest wait for its answer 11.0 ms" in target
    assert "observer’s largest loop lag 17.5 ms" in target


@pytest.mark.parametrize(("to_s", "until"), [(250.0, "250.0 s"), (None, "the end of the run")])
def test_it_says_when_lag_counts_for_the_chart_shows_the_whole_run(
    to_s: float | None, until: str, tmp_path: Path
) -> None:
    assert f"Lag counts from 70.00 s to {until}" in sentence(tmp_path, window_to_s=to_s)
