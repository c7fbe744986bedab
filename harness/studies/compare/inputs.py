"""Runs to compare: what each directory holds, under a label that tells it from the others; and what differs.

Reads directories, tests nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import yaml

from reference_server.errors import FlatlineError
from reports.run_tables import RunTables, load_run
from scenarios.read_yaml import read_yaml

__all__ = ["CannotCompare", "Input", "SettingDifference", "differences", "read_inputs"]

# These change what a run is called, drawn or judged by, not what it measures.
_NOT_THE_EXPERIMENT = {"name", "description", "seed", "thresholds", "agreement"}


class CannotCompare(FlatlineError):
    """Runs that cannot be compared; the text says why and what would help."""


@dataclass(frozen=True)
class Input:
    """One run. ``plan`` and ``scenario`` are as its files say; empty where there is no such file."""

    label: str
    tables: RunTables
    scenario: dict[str, Any] = field(repr=False)
    plan: dict[str, Any] = field(repr=False)

    def same_plan(self, other: Input) -> bool:
        """Whether both ran the very same faults, client by client. One may have been watched for longer."""
        return bool(self.plan.get("faults")) and all(
            self.plan.get(key) == other.plan.get(key) for key in ("clients", "ramp_s", "faults")
        )


@dataclass(frozen=True, slots=True)
class SettingDifference:
    """One key whose value is not the same in all runs. ``experiment``: results may differ because of it."""

    key: str
    values: tuple[str, ...]
    experiment: bool

    @property
    def policy(self) -> bool:
        """Whether it is of the policy, by its name or key by key, or of the detector that follows it."""
        return self.key.partition(".")[0] in ("liveness", "detector", "preset")

    def __str__(self) -> str:
        return f"{self.key}: {' → '.join(self.values)}"


def read_inputs(runs: Sequence[Path], *, allow_partial: bool = False) -> list[Input]:
    """Read the runs; the first is the baseline.

    Raises:
        CannotCompare: fewer than two, one twice, one without any detections, or (unless allowed) one that was
            interrupted.
        TablesError: a directory or one of its tables cannot be read.
    """
    if len(runs) < 2:
        raise CannotCompare("a comparison needs two runs or more: the baseline, then the others")
    resolved = [path.resolve() for path in runs]
    if len(set(resolved)) < len(resolved):
        raise CannotCompare("the same run stands there twice; a run cannot differ from itself")
    names = [path.name for path in resolved]
    inputs = []
    for n, path in enumerate(resolved):
        tables = load_run(path)
        if tables.table("detections").empty and tables.table("false_suspicions").empty:
            raise CannotCompare(f"{path}: nothing was measured; try `flatline report {path}` first")
        if tables.summary.get("status") == "partial" and not allow_partial:
            raise CannotCompare(f"{path}: was interrupted; `--allow-partial` compares what it measured")
        label = names[n] if names.count(names[n]) == 1 else str(path)
        # Not through the schema: a run of an older version must still be comparable.
        scenario, plan = (
            _read(path / "scenario.yaml", lambda data: read_yaml(data.decode())),
            _read(path / "plan.json", orjson.loads),
        )
        inputs.append(Input(label, tables, scenario, plan))
    return inputs


def differences(inputs: Sequence[Input]) -> list[SettingDifference]:
    """Find what is not the same: in the scenarios, the gateway's own policy, and the versions that ran."""
    found = []
    flat = [_flat(one.scenario) for one in inputs]
    for key in dict.fromkeys(key for scenario in flat for key in scenario):
        top = key.partition(".")[0].partition("[")[0]
        found += _differing(key, [s.get(key, "–") for s in flat], top not in _NOT_THE_EXPERIMENT)
    # A gateway that was told another policy than its scenario: deliberate, and the thing to be compared.
    policies = [_flat(_policy(one)) for one in inputs]
    for key in dict.fromkeys(key for policy in policies for key in policy):
        values = [policy.get(key, "–") for policy in policies]
        if values != [s.get(f"liveness.{key}", "–") for s in flat]:
            found += _differing(f"the gateway's own {key}", values, False)
    versions = [one.tables.provenance.get("versions") or {} for one in inputs]
    for package in sorted({name for v in versions for name in v}):
        of = [str(v.get(package, "–")) for v in versions]
        found += _differing(f"version of {package}", of, False)
    return found


def _differing(key: str, values: Sequence[str], experiment: bool) -> list[SettingDifference]:
    return [SettingDifference(key, tuple(values), experiment)] if len(set(values)) > 1 else []


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    """Every leaf by its path: ``liveness.max_failures``, ``faults[host_crash].share``."""
    if isinstance(value, dict):
        inner = [(f"{prefix}.{key}" if prefix else str(key), v) for key, v in value.items()]
    elif isinstance(value, list) and value:
        inner = [(f"{prefix}[{_label(v, n)}]", v) for n, v in enumerate(value)]
    else:
        return {prefix: str(value)}
    return {key: leaf for path, v in inner for key, leaf in _flat(v, path).items()}


def _label(value: Any, n: int) -> str:
    """A fault by its name, so that one more fault does not make all after it look different."""
    if isinstance(value, dict):
        return str(value.get("name") or value.get("kind") or n)
    return str(n)


def _policy(one: Input) -> Any:
    return one.tables.provenance.get("negative_control") or one.scenario.get("liveness") or {}


def _read(path: Path, parse: Callable[[bytes], Any]) -> dict[str, Any]:
    try:
        content = parse(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (yaml.YAMLError, ValueError) as error:
        raise CannotCompare(f"{path}: not {path.suffix[1:].upper()}: {error}") from error
    return content if isinstance(content, dict) else {}
