"""Run directories to compare, made by hand from laws that are known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
import yaml

from harness.measure import quality_of_service as qos
from reports.run_tables import FORMAT, frame

SCENARIO: dict[str, Any] = {
    "name": "hand",
    "description": "by hand",
    "seed": 1,
    "clients": 400,
    "duration": "250s",
    "liveness": {"heartbeat_interval": "30s", "max_failures": 3},
    "faults": [{"kind": "host_crash", "share": "50%"}, {"kind": "network_cut", "share": "25%"}],
    "thresholds": ["false_suspicions.count == 0"],
}


def uniform(n: int, lo_s: float, hi_s: float, seed: int) -> list[float]:
    return list(np.random.default_rng(seed).uniform(lo_s, hi_s, n))


def rows(
    durations_s: Sequence[float],
    *,
    fault: str = "host_crash",
    engine: str = "simulated",
    milestone: str = "suspected",
    outcomes: Sequence[str] | None = None,
) -> pd.DataFrame:
    ends = outcomes or ["detected"] * len(durations_s)
    return frame(
        "detections",
        [
            (engine, f"{fault}-{n:05d}", fault, f"s{n}", "", milestone, "", end, 100.0, took, 1.0, took)
            for n, (took, end) in enumerate(zip(durations_s, ends, strict=True))
        ],
    )


def write(
    path: Path,
    *parts: pd.DataFrame,
    scenario: dict[str, Any] | None = None,
    plan: str = "",
    suspicions: tuple[int, float] = (0, 1.0),
    gateway: dict[str, Any] | None = None,
    **summary: Any,
) -> Path:
    """``plan``: the same word, the same plan. ``suspicions``: count, client-days. ``gateway``: its own policy."""
    path.mkdir(parents=True)
    detections = pd.concat(parts, ignore_index=True) if parts else frame("detections", [])
    engines = list(detections["engine"].unique())
    detections.to_csv(path / "detections.csv", index=False)
    qos.survival(detections).to_csv(path / "survival.csv", index=False)
    frame(
        "false_suspicions",
        [(e, 90, suspicions[1], suspicions[0], suspicions[0] / suspicions[1], 0.0, 9.9) for e in engines],
    ).to_csv(path / "false_suspicions.csv", index=False)
    (path / "scenario.yaml").write_text(yaml.safe_dump(scenario or SCENARIO))
    known = {"name": "hand", "engines": engines, "sound": True, "unsound_reasons": [], **summary}
    (path / "summary.json").write_bytes(orjson.dumps(known))
    (path / "run.json").write_bytes(orjson.dumps({"format": FORMAT, "negative_control": gateway}))
    if plan:
        faults = [{"word": plan}]
        content = {"clients": 400, "ramp_s": 30.0, "faults": faults, "horizon_s": 280.0}
        (path / "plan.json").write_bytes(orjson.dumps(content))
    return path
