"""Presets: documented systems before and after their fixes, by name, as settings of the gateway and of scenarios.

From `presets.yaml` to mappings. The keys of a scenario or of a gateway's configuration then replace those of the preset
(`merged`). Runs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, model_validator

from reference_server.errors import FlatlineError, unknown_name
from reference_server.liveness.heartbeat_policy import LivenessPolicy
from reference_server.liveness.kinds import DetectorKind, Ping
from reference_server.record_rules import RecordRules

__all__ = ["Preset", "UnknownPresetError", "find_preset", "load_presets", "merged"]

_DATA = Path(__file__).with_name("presets.yaml")


class UnknownPresetError(FlatlineError, ValueError):
    """No preset, or no environment of system B, of that name; the message lists those that there are."""


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
    for raw in yaml.safe_load(_DATA.read_text(encoding="utf-8"))["presets"]:
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
