"""Presets: documented systems before and after their fixes, by name, as settings of the gateway and of scenarios.

From `presets.yaml`, and from a configuration file in system B's own words, to mappings. The keys of a scenario or of a
gateway's configuration then replace those of the preset (`merged`). Runs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, model_validator

from reference_server.durations import parse_duration
from reference_server.errors import FlatlineError, unknown_name
from reference_server.liveness.heartbeat_policy import LivenessPolicy
from reference_server.liveness.kinds import DetectorKind, Ping
from reference_server.record_rules import RecordRules

__all__ = [
    "Preset",
    "UnknownPresetError",
    "environment",
    "environments",
    "find_preset",
    "is_b_config",
    "load_presets",
    "merged",
    "read_b_config",
]

_DATA = Path(__file__).with_name("presets.yaml")
_ANSWER_S = 10.0  # the answer's deadline where a heartbeat leaves room for it
_B_SECTIONS = {
    "system": {"max_sessions": "max_sessions", "session_timeout": "session_timeout"},
    "websocket": {"heartbeat_interval": "heartbeat_interval", "heartbeat_max_failures": "max_failures"},
}
_B_KEYS = {key: ours for section in _B_SECTIONS.values() for key, ours in section.items()}
_B_KEYS |= {"max_failures": "max_failures"}  # as its troubleshooting writes it
_NOT_SETTINGS = frozenset({"name", "preset"})


class UnknownPresetError(FlatlineError, ValueError):
    """No preset, or no environment, of that name; the message lists those that there are."""


class Preset(BaseModel):
    """One system: what it sets, which layers it has, what its document says and what is wrong with it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    like: str | None = None
    liveness: dict[str, Any] = {}
    detector: DetectorKind = Ping()
    records: dict[str, Any] = {}
    second_login: Literal["refuse", "take_over"] = "take_over"
    survives_connection: bool = False
    node_lease: bool = False
    layers: tuple[str, ...]
    explains: str
    source: str
    wrong: tuple[str, ...]

    @model_validator(mode="after")
    def _is_possible(self) -> Preset:
        _ = self.policy, self.rules  # so a mistake in the data is reported when it is read
        return self

    @property
    def policy(self) -> LivenessPolicy:
        """Its policy; seconds."""
        return LivenessPolicy.model_validate(self.liveness)

    @property
    def rules(self) -> RecordRules:
        """Its rules about records."""
        return RecordRules.model_validate(self.records)

    @property
    def scenario_keys(self) -> dict[str, Any]:
        """What a scenario that names it begins with."""
        return {
            "liveness": self.policy.model_dump(mode="json"),
            "detector": self.detector.model_dump(mode="json"),
            "records": self.rules.model_dump(mode="json"),
            "sessions": {"second_login": self.second_login, "survives_connection": self.survives_connection},
        }

    @property
    def gateway_keys(self) -> dict[str, Any]:
        """What the configuration of a gateway that names it begins with."""
        keys = self.scenario_keys
        return {
            "policy": keys["liveness"],
            "detector": keys["detector"],
            "records": keys["records"],
            "second_login": self.second_login,
            "session_survives_connection": self.survives_connection,
            **({} if self.node_lease else {"lease_ttl_s": None}),
        }


@cache
def load_presets() -> dict[str, Preset]:
    """All presets by name, in the order of the file."""
    found: dict[str, Preset] = {}
    for raw in _data()["presets"]:
        base = found.get(raw.get("like", ""))
        if base is not None:
            raw = merged(base.model_dump(mode="json"), raw)
        found[raw["name"]] = Preset.model_validate(raw)
    return found


def find_preset(name: str) -> Preset:
    """Return a preset.

    Raises:
        UnknownPresetError: there is none of that name.
    """
    presets = load_presets()
    if name not in presets:
        raise UnknownPresetError(unknown_name(f"unknown preset {name!r}", name, presets))
    return presets[name]


def environments() -> tuple[str, ...]:
    """The names of system B's environments."""
    return tuple(_data()["environments"])


def environment(name: str) -> dict[str, Any]:
    """The keys of `liveness` that system B's document recommends for an environment.

    Raises:
        UnknownPresetError: there is none of that name.
    """
    known = _data()["environments"]
    key = name.replace("_", "-").replace(" ", "-")
    if key not in known:
        raise UnknownPresetError(unknown_name(f"unknown environment {name!r}", name, known))
    return dict(known[key])


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with the keys of ``over`` in their place, mappings key by key.

    A mapping that names another ``kind`` replaces the whole of the one below it.
    """
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            other_kind = "kind" in value and value["kind"] != below.get("kind")
            result[key] = dict(value) if other_kind else merged(below, value)
        else:
            result[key] = value
    return result


def is_b_config(raw: Mapping[str, Any]) -> bool:
    """Whether a file speaks system B's language: its sections, or its keys without them."""
    keys = set(raw) - _NOT_SETTINGS
    return bool(keys) and keys <= _B_SECTIONS.keys() | _B_KEYS.keys()


def read_b_config(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Translate system B's configuration into keys of `liveness`, those that it has.

    Sections (``system: {session_timeout: 180}``) or flat keys. Times are bare seconds there, or written with a unit;
    they come back as seconds. An interval below 10 s is the answer's deadline too.

    Raises:
        ValueError: unknown keys, values that are not positive; the message lists every problem.
    """
    problems: list[str] = []
    settings: dict[str, Any] = {}
    for name, key, value in _flat(raw):
        if key not in _B_KEYS:
            problems.append(unknown_name(f"{name}: unknown key {key!r}", key, _B_KEYS))
            continue
        ours = _B_KEYS[key]
        try:
            settings[ours] = _positive(value, whole=ours.startswith("max"))
        except ValueError as error:
            problems.append(f"{name}: {error}")
    if problems:
        raise ValueError("; ".join(problems))
    if (interval_s := settings.get("heartbeat_interval", _ANSWER_S)) < _ANSWER_S:
        settings["heartbeat_timeout"] = interval_s
    return settings


def _flat(raw: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """The keys of a configuration with their full names, for messages, and their values."""
    for name, value in raw.items():
        if name in _B_SECTIONS and isinstance(value, Mapping):
            yield from ((f"{name}.{key}", key, inner) for key, inner in value.items())
        elif name not in _NOT_SETTINGS:
            yield name, name, value


def _positive(value: Any, *, whole: bool) -> float | int:
    number = parse_duration(value) if isinstance(value, str) and not whole else value
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    if not is_number or not number > 0 or (whole and number != int(number)):
        wanted = "a whole number above 0" if whole else "seconds above 0, or a duration as 30s"
        raise ValueError(f"{value!r}; allowed: {wanted}")
    return int(number) if whole else float(number)


@cache
def _data() -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load(_DATA.read_text(encoding="utf-8"))
    return data
