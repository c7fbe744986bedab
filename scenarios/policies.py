"""Policy files: the keys of a scenario's `liveness` by themselves, as `flatline tune --output` writes them.

From YAML to a checked `LivenessPolicy` and back, and a scenario under another policy than its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from reference_server.liveness.heartbeat_policy import LivenessPolicy
from scenarios.load import built_in, load_scenario, read_file, replaced, validated
from scenarios.schema import Scenario

__all__ = ["dump_policy", "in_seconds", "load_policy", "scenario_under"]

_IN_SECONDS = frozenset(
    name for name, info in LivenessPolicy.model_fields.items() if "float" in str(info.annotation)
)


def in_seconds(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a policy; where a time is a bare number, it is seconds."""
    return {
        key: float(value) if key in _IN_SECONDS and _is_number(value) else value for key, value in raw.items()
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def load_policy(path: str | Path) -> LivenessPolicy:
    """Read a policy file.

    Raises:
        ScenarioError: no such file, or no policy; it lists every problem with its line and key.
    """
    raw, tree = read_file(str(path), Path(path), "a policy is a mapping of keys to values")
    return validated(LivenessPolicy, in_seconds(raw), str(path), tree)


def dump_policy(policy: LivenessPolicy, *comments: str) -> str:
    """Return what differs from a default, or was chosen, as YAML; :func:`load_policy` reads it back."""
    told = policy.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    return "".join(f"# {line}\n" for line in comments) + yaml.safe_dump(
        told, sort_keys=False, allow_unicode=True
    )


def scenario_under(
    name_or_path: str, policy: str | Path, **overrides: Any
) -> tuple[Scenario, tuple[str, ...]]:
    """Load a scenario with a policy file in the place of its own policy, and say what else changed.

    A built-in scenario becomes long enough for the policy to notice the last fault, and leaves out what its
    thresholds say of its own policy's detection latency.

    Raises:
        ScenarioError: the scenario or the policy cannot be used.
    """
    chosen = load_policy(policy)
    scenario = load_scenario(name_or_path, **overrides)
    changes: dict[str, Any] = {"liveness": chosen.model_dump(mode="json")}
    notes = []
    if name_or_path in built_in():
        kept = tuple(text for text in scenario.thresholds if not text.startswith("detection_latency"))
        if left_out := [text for text in scenario.thresholds if text not in kept]:
            notes.append(f"left out, for it is meant for the scenario's own policy: {'; '.join(left_out)}")
        changes["thresholds"] = list(kept)
        changes["abort_on_fail"] = [text for text in scenario.abort_on_fail if text in kept]
        latest_s = max((float(fault.at.quantile(0.999)) for fault in scenario.faults), default=0.0)
        bounds = chosen.detection_range_s
        needed_s = latest_s + (0.0 if bounds is None else bounds[1]) + 10.0
        if needed_s > scenario.duration:
            changes["duration"] = float(round(needed_s))
            notes.append(
                f"the run takes {needed_s:.0f} s after its ramp: time for this policy to notice the last fault"
            )
    return replaced(scenario, str(policy), **changes), tuple(notes)
