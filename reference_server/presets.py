"""Presets: documented systems before and after their fixes, by name, as settings of the gateway and of scenarios.

From `presets.yaml`, and from a configuration file in system B's own words, to mappings that a scenario or a
gateway's configuration is laid over. Runs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, model_validator

from reference_server.durations import format_duration, parse_duration
from reference_server.errors import FlatlineError
from reference_server.liveness.heartbeat_policy import LivenessPolicy
from reference_server.liveness.kinds import DetectorKind, Ping
from reference_server.sessions.record_rules import RecordRules

__all__ = [
    "Preset",
    "UnknownPresetError",
    "environment",
    "environments",
    "find_preset",
    "is_b_config",
    "laid_over",
    "load_presets",
    "read_b_config",
]

_DATA = Path(__file__).with_name("presets.yaml")
_ANSWER_S = 10.0  # the answer's deadline where a heartbeat leaves room for it
_B_KEYS = {
    "system.max_sessions": "max_sessions",
    "system.session_timeout": "session_timeout",
    "websocket.heartbeat_interval": "heartbeat_interval",
    "websocket.heartbeat_max_failures": "max_failures",
}


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
    node_lease: bool = False
    layers: tuple[str, ...]
    explains: str
    source: str
    wrong: tuple[str, ...]

    @model_validator(mode="after")
    def _is_possible(self) -> Preset:
        _ = self.policy, self.rules  # a mistake in the data is told when it is read
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
            "sessions": {"second_login": self.second_login},
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
            **({} if self.node_lease else {"lease_ttl_s": None}),
        }


@cache
def load_presets() -> dict[str, Preset]:
    """All presets by name, in the order of the file."""
    found: dict[str, Preset] = {}
    for raw in _data()["presets"]:
        base = found.get(raw.get("like", ""))
        if base is not None:
            raw = laid_over(base.model_dump(mode="json"), raw)
        found[raw["name"]] = Preset.model_validate(raw)
    return found


def find_preset(name: str) -> Preset:
    """Return a preset.

    Raises:
        UnknownPresetError: there is none of that name.
    """
    presets = load_presets()
    if name not in presets:
        raise UnknownPresetError(_unknown("preset", name, list(presets)))
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
        raise UnknownPresetError(_unknown("environment", name, list(known)))
    return dict(known[key])


def laid_over(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with the keys of ``over`` in their place, mappings key by key.

    A mapping that names another ``kind`` replaces the whole of the one below it.
    """
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            other_kind = "kind" in value and value["kind"] != below.get("kind")
            merged[key] = dict(value) if other_kind else laid_over(below, value)
        else:
            merged[key] = value
    return merged


def is_b_config(raw: Mapping[str, Any]) -> bool:
    """Whether a file speaks system B's language: its sections, or its keys without them."""
    names = {name.partition(".")[0] for name in _B_KEYS} | {n.partition(".")[2] for n in _B_KEYS}
    return bool(set(raw) - {"name"}) and set(raw) <= names | {"name", "preset"}


def read_b_config(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Translate system B's configuration into keys of `liveness`.

    Sections (``system: {session_timeout: 180}``) or flat keys; times are bare seconds there, or written with a
    unit.

    Raises:
        ValueError: an unknown key, or a value that is no number of seconds.
    """
    flat: dict[str, Any] = {}
    for section, value in raw.items():
        if section in ("name", "preset"):
            continue
        pairs = value.items() if isinstance(value, Mapping) else [("", value)]
        flat |= {f"{section}.{key}".strip("."): told for key, told in pairs}
    short = {name.partition(".")[2]: to for name, to in _B_KEYS.items()}
    settings: dict[str, Any] = {}
    for name, told in flat.items():
        to = _B_KEYS.get(name) or short.get(name)
        if to is None:
            raise ValueError(_unknown("key", name, list(_B_KEYS)))
        is_time = to in ("session_timeout", "heartbeat_interval")
        if is_time and isinstance(told, int | float) and not isinstance(told, bool):
            told = format_duration(float(told))
        settings[to] = told
    interval_s = parse_duration(settings.get("heartbeat_interval", "30s"))
    if interval_s < _ANSWER_S:
        settings["heartbeat_timeout"] = format_duration(interval_s)
    return settings


@cache
def _data() -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load(_DATA.read_text(encoding="utf-8"))
    return data


def _unknown(what: str, name: str, known: list[str]) -> str:
    close = get_close_matches(name, known, n=1)
    meant = f"; did you mean {close[0]}?" if close else ""
    return f"unknown {what} {name!r}{meant} allowed: {', '.join(known)}"
