"""Where settings and boxes come from: profiles and scenarios by name, YAML files, raw keys. Judges nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from harness.lint.setting import Setting
from harness.profiles import IdleTimerProfile, NetworkProfile, Status, load_profiles
from reference_server.durations import parse_duration
from scenarios.load import built_in, load_scenario

__all__ = ["LintInputError", "middleboxes_of", "setting_of", "setting_of_yaml"]

_ANSWER_S = (
    10.0  # the deadline where a configuration has none: as the gateway that it was written for
)
_SECTIONS = {
    "system": {"max_sessions", "session_timeout"},
    "websocket": {"heartbeat_interval", "heartbeat_max_failures"},
}


class LintInputError(ValueError):
    """What is to be checked does not exist or cannot be read; lists every problem."""


def setting_of_yaml(raw: Mapping[str, Any], name: str = "configuration") -> Setting:
    """The two sections `system` and `websocket`: whole seconds, or durations with a unit.

    A configuration without a deadline gets 10 s, or its interval where that is shorter.

    Raises:
        LintInputError: unknown or missing keys, values that are not positive.
    """
    problems: list[str] = []
    found: dict[str, float] = {}
    for section, content in raw.items():
        if section not in _SECTIONS or not isinstance(content, Mapping):
            problems.append(f"{section}: unknown; allowed sections: {', '.join(_SECTIONS)}")
            continue
        for key, value in content.items():
            if key not in _SECTIONS[section]:
                allowed = ", ".join(sorted(_SECTIONS[section]))
                problems.append(f"{section}.{key}: unknown; allowed: {allowed}")
                continue
            try:
                found[key] = _positive(value, whole=key.startswith("max") or "_max_" in key)
            except ValueError as error:
                problems.append(f"{section}.{key}: {error}")
    if problems or not found:
        raise LintInputError(f"{name}: " + ("; ".join(problems) or "nothing to check in it"))
    interval_s = found.get("heartbeat_interval")
    sessions = found.get("max_sessions")
    return Setting(
        name=name,
        interval_s=interval_s,
        timeout_s=None if interval_s is None else min(_ANSWER_S, interval_s),
        max_failures=int(found.get("heartbeat_max_failures", 1)),
        idle_limit_s=found.get("session_timeout"),
        max_sessions=None if sessions is None else int(sessions),
    )


def setting_of(name_or_path: str) -> Setting:
    """Find what is to be checked: a heartbeat profile, a built-in scenario, or a YAML file of either form.

    Raises:
        LintInputError: no such name or file, or a file that is neither.
        ScenarioError: a scenario file with problems.
    """
    for profile in load_profiles().heartbeats:
        if profile.name == name_or_path:
            return Setting.of_profile(profile)
    path = Path(name_or_path)
    if name_or_path not in built_in():
        try:
            raw = yaml.safe_load(path.read_text())
        except OSError as error:
            names = [p.name for p in load_profiles().heartbeats] + list(built_in())
            raise LintInputError(
                f"{name_or_path}: {error.strerror}; names that can be checked: {', '.join(names)}"
            ) from error
        except (yaml.YAMLError, UnicodeError) as error:
            raise LintInputError(f"{name_or_path}: not YAML: {error}") from error
        if isinstance(raw, Mapping) and not raw.keys().isdisjoint(_SECTIONS):
            return setting_of_yaml(raw, name=name_or_path)
    scenario = load_scenario(name_or_path)
    return Setting.of_policy(scenario.liveness, name=scenario.name)


def middleboxes_of(network: NetworkProfile) -> tuple[IdleTimerProfile, ...]:
    """The boxes on a network's way: those that it names, and its own idle timer."""
    named = tuple(p for p in load_profiles().idle_timers if p.name in network.middleboxes)
    if network.idle_timer is None:
        return named
    own = IdleTimerProfile(
        name=network.name,
        title=f"{network.title}: its idle timer",
        idle_timeout=network.idle_timer.idle_timeout,
        expiry=network.idle_timer.expiry,
        source=network.source,
        status=(Status.ASSUMED,),
    )
    return (*named, own)


def _positive(value: Any, *, whole: bool) -> float:
    number: Any = value
    if isinstance(value, str) and not whole:
        number = parse_duration(value)
    if isinstance(number, bool) or not isinstance(number, int | float) or not number > 0:
        wanted = "a whole number above 0" if whole else "seconds above 0, or a duration as 30s"
        raise ValueError(f"{value!r}; allowed: {wanted}")
    if whole and number != int(number):
        raise ValueError(f"{value!r}; allowed: a whole number above 0")
    return float(number)
