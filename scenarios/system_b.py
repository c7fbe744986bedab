"""System B's own words: the environments that its document recommends settings for, and its configuration file.

From these to keys of `liveness`. What the system does with them is one of the presets (`reference_server/presets.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from reference_server.durations import parse_duration
from reference_server.errors import unknown_name
from reference_server.presets import UnknownPresetError

__all__ = ["ENVIRONMENTS", "environment", "is_b_config", "read_b_config"]

ENVIRONMENTS: dict[str, dict[str, Any]] = {
    "development": {"heartbeat_interval": "30s"},
    "production": {"heartbeat_interval": "45s"},
    "production-recommended": {
        "max_sessions": 10,
        "session_timeout": "180s",
        "heartbeat_interval": "30s",
        "max_failures": 3,
    },
    "low-latency": {"heartbeat_interval": "15s"},
    "thrifty": {"heartbeat_interval": "90s"},
    "constrained": {
        "max_sessions": 5,
        "session_timeout": "120s",
        "heartbeat_interval": "60s",
        "max_failures": 2,
    },
}
"""What the document recommends, each range as one number."""
_ANSWER_S = 10.0  # the answer's deadline where a heartbeat leaves room for it
_B_SECTIONS = {
    "system": {"max_sessions": "max_sessions", "session_timeout": "session_timeout"},
    "websocket": {"heartbeat_interval": "heartbeat_interval", "heartbeat_max_failures": "max_failures"},
}
_B_KEYS = {key: ours for section in _B_SECTIONS.values() for key, ours in section.items()}
_B_KEYS |= {"max_failures": "max_failures"}  # as its troubleshooting writes it
_NOT_SETTINGS = frozenset({"name", "preset"})


def environment(name: str) -> dict[str, Any]:
    """The keys of `liveness` that system B's document recommends for an environment.

    Raises:
        UnknownPresetError: there is none of that name.
    """
    key = name.replace("_", "-").replace(" ", "-")
    if key not in ENVIRONMENTS:
        raise UnknownPresetError(unknown_name(f"unknown environment {name!r}", name, ENVIRONMENTS))
    return dict(ENVIRONMENTS[key])


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
