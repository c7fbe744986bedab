"""Runs to compare: what each directory holds, under a label that says what it alone has; and what differs.

Reads directories, tests nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson
import yaml

from reference_server.errors import FlatlineError
from reports.numbers import NBSP, words
from reports.run_tables import RunTables, load_run
from scenarios.read_yaml import read_yaml

__all__ = ["CannotCompare", "Input", "SettingDifference", "differences", "read_inputs"]

# These change what a run is called, drawn or judged by, not what it measures.
_NOT_THE_EXPERIMENT = {"name", "description", "seed", "thresholds", "agreement"}
_SYMBOLS = {"heartbeat_interval": "T", "heartbeat_timeout": "τ", "max_failures": "k", "retry_interval": "R"}
_ABSENT = "–"
_MOST_KEYS = 4  # in a legend
_MORE = "and more"


class CannotCompare(FlatlineError):
    """Runs that cannot be compared; the text says why and what would help."""


@dataclass(frozen=True)
class Input:
    """One run: its directory's name, and what charts call it.

    ``plan`` and ``scenario`` are as its files say; empty where there is no such file.
    """

    run: str
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
        return f"{self.key}: {' → '.join('not set' if v == 'None' else v for v in self.values)}"


def read_inputs(
    runs: Sequence[Path], *, labels: Sequence[str] = (), allow_partial: bool = False
) -> list[Input]:
    """Read the runs; the first is the baseline.

    ``labels``: one a run; none: they are called by the settings that differ, or by their names where none does.

    Raises:
        CannotCompare: fewer than two, one twice, one without any detections, or (unless allowed) one that was
            interrupted; labels that are not one a run, each another.
        TablesError: a directory or one of its tables cannot be read.
    """
    if len(runs) < 2:
        raise CannotCompare("a comparison needs two runs or more: the baseline, then the others")
    resolved = [path.resolve() for path in runs]
    if len(set(resolved)) < len(resolved):
        raise CannotCompare("the same run stands there twice; a run cannot differ from itself")
    if labels and len(labels) != len(runs):
        raise CannotCompare(
            f"--labels: {len(labels)} for {len(runs)} runs; allowed: one a run, the baseline's first"
        )
    if labels and not (all(labels) and len(set(labels)) == len(labels)):
        raise CannotCompare(
            "--labels: one is empty or stands there twice; allowed: a name of its own for each run"
        )
    names = [path.name for path in resolved]
    inputs = []
    for n, path in enumerate(resolved):
        tables = load_run(path)
        if tables.table("detections").empty and tables.table("false_suspicions").empty:
            raise CannotCompare(f"{path}: nothing was measured; try `flatline report {path}` first")
        if tables.summary.get("status") == "partial" and not allow_partial:
            raise CannotCompare(f"{path}: was interrupted; `--allow-partial` compares what it measured")
        run = names[n] if names.count(names[n]) == 1 else str(path)
        # Not through the schema: a run of an older version must still be comparable.
        scenario, plan = (
            _read(path / "scenario.yaml", lambda data: read_yaml(data.decode())),
            _read(path / "plan.json", orjson.loads),
        )
        inputs.append(Input(run, run, tables, scenario, plan))
    called = labels or _called(inputs)
    return [replace(one, label=label) for one, label in zip(inputs, called, strict=True)]


def _called(inputs: Sequence[Input]) -> list[str]:
    """Name the runs by the settings that differ, as ``T = 10 s, k = 3``; by their names where none tells them apart.

    The policy comes first, as the gateway ran it. A seed or a version is named only where nothing else differs.
    """
    flat = [_flat(one.scenario) for one in inputs]
    for of_run, one in zip(flat, inputs, strict=True):
        of_run |= _flat(_policy(one), "liveness")
    found = _differing_keys(flat)
    policy = [d for d in found if d.policy]
    named = [*policy, *(d for d in found if d.experiment and not d.policy)]
    more = len(named) > _MOST_KEYS
    parts = [_in_words(d) for d in (policy if more else named)]
    if not parts and not named:
        parts = [_in_words(d) for d in [*(d for d in found if d.key == "seed"), *_versions(inputs)]]
    if not 0 < len(parts) <= _MOST_KEYS:
        return [one.run for one in inputs]
    labels = [", ".join((*of_run, *([_MORE] if more else []))) for of_run in zip(*parts, strict=True)]
    return labels if len(set(labels)) == len(labels) else [one.run for one in inputs]


def _in_words(difference: SettingDifference) -> list[str]:
    """Return what each run has, as ``k = 3``."""
    path = re.findall(r"[^.\[\]]+", difference.key)
    last = path[-1]
    inner = [part for part in (path[1:] or path) if part not in ("constant", "kind")] or path[:1]
    name = _SYMBOLS.get(last) or " ".join(map(words, inner))
    return [f"{name} = {_value(value, last)}" for value in difference.values]


def _value(value: str, key: str) -> str:
    if value in ("None", _ABSENT, "[]"):
        return "T" if key == "retry_interval" else "none"
    if value in ("True", "False"):
        return "yes" if value == "True" else "no"
    duration = re.fullmatch(r"([\d.]+)(ms|s|m|h|d)", value)
    if duration is None:
        return words(value)
    unit = {"m": "min"}.get(duration[2], duration[2])
    return f"{duration[1]}{NBSP}{unit}"


def differences(inputs: Sequence[Input]) -> list[SettingDifference]:
    """Find what is not the same: in the scenarios, the gateway's own policy, and the versions that ran."""
    flat = [_flat(one.scenario) for one in inputs]
    found = list(_differing_keys(flat))
    # A gateway that was told another policy than its scenario: deliberate, and the thing to be compared.
    policies = [_flat(_policy(one)) for one in inputs]
    for key in dict.fromkeys(key for policy in policies for key in policy):
        values = [policy.get(key, _ABSENT) for policy in policies]
        if values != [s.get(f"liveness.{key}", _ABSENT) for s in flat]:
            found += _differing(f"the gateway's own {key}", values, False)
    return [*found, *_versions(inputs)]


def _differing_keys(flat: Sequence[dict[str, str]]) -> list[SettingDifference]:
    found = []
    for key in dict.fromkeys(key for scenario in flat for key in scenario):
        top = key.partition(".")[0].partition("[")[0]
        found += _differing(key, [s.get(key, _ABSENT) for s in flat], top not in _NOT_THE_EXPERIMENT)
    return found


def _versions(inputs: Sequence[Input]) -> Iterator[SettingDifference]:
    versions = [one.tables.provenance.get("versions") or {} for one in inputs]
    for package in sorted({name for v in versions for name in v}):
        of = [str(v.get(package, _ABSENT)) for v in versions]
        yield from _differing(f"version of {package}", of, False)


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
