"""What ran where: versions, machine, seed, engines, into run.json. A run says of itself whether it came to its end."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import psutil

from harness.real.engine import TCP_GIVE_UP_S, RealSetup, fidelity
from harness.runs.directory import RunDir
from reference_server.liveness.heartbeat_policy import LivenessPolicy
from reference_server.presets import find_preset
from reports.run_tables import FORMAT
from scenarios.plan import Plan
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


def begin(
    run: RunDir, scenario: Scenario, plan: Plan, engines: tuple[str, ...], setup: RealSetup | None
) -> None:
    """Write run.json with status `running`: what a killed run leaves behind says that it was killed."""
    override = setup.gateway_policy if setup else None
    preset = setup.gateway_preset if setup else None
    if preset is not None:
        override = override or find_preset(preset).policy
    real = "real" in engines
    run.write_json(
        run.provenance,
        {
            "format": FORMAT,
            "scenario": scenario.name,
            "seed": scenario.seed,
            "engines": list(engines),
            "speedup": scenario.speedup,
            "network": setup.network if setup and real else "loopback",
            "started": _now(),
            "status": "running",
            "machine": _machine(),
            "versions": {name: found for name in _PACKAGES if (found := _version(name))},
            "fidelity": fidelity(plan, setup) if real else [],
            "notes": _notes(scenario, engines),
            "negative_control": _told(override, preset) if override else None,
        },
    )


def _told(policy: LivenessPolicy, preset: str | None) -> dict[str, Any]:
    """What the gateway alone was told."""
    return policy.model_dump(mode="json") | ({"preset": preset} if preset else {})


def finish(run: RunDir, status: str, **more: Any) -> None:
    """Set the status (`complete` or `partial`) and the end's time."""
    known = run.read_json(run.provenance)
    run.write_json(run.provenance, known | {"status": status, "ended": _now()} | more)


def _notes(scenario: Scenario, engines: tuple[str, ...]) -> list[str]:
    """What a reader must know about the real run's time."""
    if "real" not in engines or scenario.clock.is_real_time:
        return []
    notes = [
        f"The real run divided every time but round trips by {scenario.speedup:g}; all results are in "
        "scenario time."
    ]
    if scenario.liveness.tcp_user_timeout is None:
        notes.append(
            "TCP's own patience cannot be sped up: each socket of the gateway was bounded by "
            f"TCP_USER_TIMEOUT = {TCP_GIVE_UP_S:g} s / {scenario.speedup:g} = "
            f"{scenario.clock.real_s(TCP_GIVE_UP_S):.1f} s."
        )
    return notes


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
