"""What ran where: versions, machine, seed, engines, into run.json. A run says of itself whether it came to its end."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import psutil

from harness.runs.directory import RunDir
from reports.run_tables import FORMAT
from scenarios.schema import Scenario

__all__ = ["begin", "finish"]

_PACKAGES = (
    "flatline",
    "simpy",
    "websockets",
    "redis",
    "locust",
    "gevent",
    "uvloop",
    "numpy",
    "scipy",
    "pandas",
)


def begin(run: RunDir, scenario: Scenario, engines: tuple[str, ...], how: Mapping[str, Any]) -> None:
    """Write run.json with status `running`: what a killed run leaves behind says that it was killed.

    Args:
        run: its directory.
        scenario: what runs.
        engines: in which engines.
        how: what only the caller knows: network, fidelity, notes, negative_control.
    """
    run.write_json(
        run.provenance,
        {
            "format": FORMAT,
            "scenario": scenario.name,
            "seed": scenario.seed,
            "engines": list(engines),
            "speedup": scenario.speedup,
            "started": _now(),
            "status": "running",
            "machine": _machine(),
            "versions": {name: found for name in _PACKAGES if (found := _version(name))},
            **how,
        },
    )


def finish(run: RunDir, status: str, **more: Any) -> None:
    """Set the status (`complete` or `partial`) and the end's time."""
    known = run.read_json(run.provenance)
    run.write_json(run.provenance, known | {"status": status, "ended": _now()} | more)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _machine() -> dict[str, Any]:
    return {
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "cpu": platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
