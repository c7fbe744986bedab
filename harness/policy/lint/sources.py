"""Where lint finds its subject: by name, or in a file of ours or of another product, in that product's own keys.

From a name or a path to a `Subject`: a scenario, a bare policy, system B's configuration, a heartbeat profile, or what
the configuration of Socket.IO, a Python library or a proxy says in its own keys (in YAML, JSON, code, or the forms of
nginx and HAProxy). From `--behind` to boxes on the way. Reads files, judges nothing.

A foreign file is scanned for the keys below, whatever surrounds them; the last value of a key counts, of a proxy's
several locations the shortest.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from harness.policy.lint.setting import Setting
from harness.policy.profiles import (
    HeartbeatProfile,
    IdleTimerProfile,
    Status,
    idle_timer_profile,
    load_profiles,
)
from reference_server.durations import parse_duration
from reference_server.errors import FlatlineError
from reference_server.liveness.heartbeat_policy import LivenessPolicy
from scenarios.load import built_in, load_scenario
from scenarios.policies import in_seconds
from scenarios.read_yaml import YamlTooLarge, read_yaml, read_yaml_text
from scenarios.schema import Scenario
from scenarios.system_b import read_b_config

__all__ = ["LintInputError", "Subject", "boxes_behind", "combined", "setting_of_yaml", "subject_of"]


class LintInputError(FlatlineError):
    """What is to be checked does not exist or cannot be read; lists every problem."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is to be checked: who decides, and boxes on the way. ``what`` is None where a file tells of boxes alone."""

    name: str
    what: Setting | Scenario | HeartbeatProfile | None
    boxes: tuple[IdleTimerProfile, ...] = ()


def subject_of(name_or_path: str) -> Subject:
    """Find what is to be checked: a profile, a built-in scenario, or a file.

    Raises:
        LintInputError: no such name or file, or a file in which nothing is known.
        ScenarioError: a scenario file with problems.
    """
    profiles = load_profiles()
    for profile in profiles.heartbeats:
        if profile.name == name_or_path:
            return Subject(name_or_path, profile)
    if name_or_path in built_in():
        return Subject(name_or_path, load_scenario(name_or_path))
    for box in profiles.idle_timers:
        if box.name == name_or_path:
            return Subject(name_or_path, None, (box,))
    path = Path(name_or_path)
    try:
        text = read_yaml_text(path)
    except OSError as error:
        names = [p.name for p in profiles.heartbeats] + list(built_in())
        raise LintInputError(
            f"{name_or_path}: {error.strerror}; names that can be checked: {', '.join(names)}"
        ) from error
    except UnicodeError as error:
        raise LintInputError(f"{name_or_path}: not text: {error}") from error
    problem = ""
    try:
        raw = read_yaml(text)
    except YamlTooLarge as error:
        raise LintInputError(f"{name_or_path}: {error}") from error
    except (yaml.YAMLError, ValueError) as error:
        raw, problem = None, f"not YAML: {error}"
    if isinstance(raw, Mapping) and (found := _ours(raw, name_or_path)) is not None:
        return found
    if (foreign := _foreign(text, path.name)) is not None:
        return foreign
    if isinstance(raw, Mapping):
        return Subject(name_or_path, load_scenario(name_or_path))  # which says what is wrong with it
    problem = (
        problem or "no key of a scenario, of a policy, of Socket.IO, a proxy or another product is in it"
    )
    raise LintInputError(f"{name_or_path}: {problem}")


def _ours(raw: Mapping[str, Any], name: str) -> Subject | None:
    """A scenario, a bare policy or system B's configuration; None: none of these."""
    keys = set(raw)
    if keys & {"system", "websocket"} or "heartbeat_max_failures" in keys:
        return Subject(name, setting_of_yaml(raw, name))
    if keys & (Scenario.model_fields.keys() - {"name", "description"}):
        changes = {} if "duration" in keys else {"duration": "1h"}
        return Subject(name, load_scenario(name, **changes))
    if keys and keys <= LivenessPolicy.model_fields.keys():
        return Subject(name, _bare_policy(raw, name))
    return None


def _bare_policy(raw: Mapping[str, Any], name: str) -> Setting:
    """Keys of `liveness` by themselves; a bare number is seconds. What contradicts each other is lint's to find."""
    given = in_seconds(raw)
    retry = given.pop("retry_interval", None)
    try:
        setting = Setting.of_policy(LivenessPolicy.model_validate(given), name)
        return replace(setting, retry_s=None if retry is None else float(parse_duration(retry)))
    except ValueError as error:
        errors: Any = getattr(error, "errors", None)
        told = (
            [
                f"{'.'.join(map(str, one['loc']))}: {one['msg'].removeprefix('Value error, ')}"
                for one in errors()
            ]
            if errors
            else [f"retry_interval: {error}"]
        )
        raise LintInputError(f"{name}: " + "; ".join(told)) from error


def setting_of_yaml(raw: Mapping[str, Any], name: str = "configuration") -> Setting:
    """System B's configuration: two sections `system` and `websocket`, whole seconds or durations with a unit.

    A configuration without a deadline gets 10 s, or its interval where that is shorter.

    Raises:
        LintInputError: unknown or missing keys, values that are not positive.
    """
    try:
        found = read_b_config(raw)
    except ValueError as error:
        raise LintInputError(f"{name}: {error}") from error
    if not found:
        raise LintInputError(f"{name}: nothing to check in it")
    interval_s = found.get("heartbeat_interval")
    default_s = LivenessPolicy().heartbeat_timeout
    return Setting(
        name=name,
        interval_s=interval_s,
        timeout_s=None if interval_s is None else found.get("heartbeat_timeout", default_s),
        max_failures=found.get("max_failures", 1),
        idle_limit_s=found.get("session_timeout"),
        max_sessions=found.get("max_sessions"),
    )


def combined(subjects: Iterable[Subject]) -> Subject:
    """Several files as one: the first that says who decides, and all boxes."""
    several = list(subjects)
    deciding = [subject for subject in several if subject.what is not None]
    if len(deciding) > 1:
        names = ", ".join(subject.name for subject in deciding)
        raise LintInputError(f"{names}: each says how silence is noticed; allowed: one, and proxies")
    boxes = tuple(box for subject in several for box in subject.boxes)
    first = deciding[0] if deciding else several[0]
    return Subject(first.name, first.what, boxes)


# -- other products' own keys -------------------------------------------------------------------------

_UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_VALUE = r"(\d[\d_.]*(?:\s*\*\s*\d[\d_]*)*)\s*(ms|s|m|h|d)?(?![\w.])"


def _times(text: str, key: str, unit_s: float) -> list[float]:
    """Every value of a key, seconds; ``unit_s``: of a bare number. Comments do not count."""
    found = []
    pattern = re.compile(rf"(?<![\w.])(?<!\w-){key}[\"']?\s*[:=]?\s*[\"']?{_VALUE}")
    for number, unit in pattern.findall(text):
        factors = [float(part.replace("_", "")) for part in number.split("*")]
        found.append(math.prod(factors) * (_UNITS[unit] if unit else unit_s))
    return found


@dataclass(frozen=True, slots=True)
class _Stack:
    """How a product is told when to ping: its keys, the seconds of a bare number, and what is left at its default."""

    name: str
    interval: str
    timeout: str
    unit_s: float
    default_interval_s: float
    default_timeout_s: float
    protocol_ping: bool = True


_STACKS = (
    _Stack("Socket.IO", "pingInterval", "pingTimeout", 1e-3, 25.0, 20.0, protocol_ping=False),
    _Stack("uvicorn", r"ws[_-]ping[_-]interval", r"ws[_-]ping[_-]timeout", 1.0, 20.0, 20.0),
    _Stack("tornado", "websocket_ping_interval", "websocket_ping_timeout", 1.0, 30.0, 30.0),
    _Stack("ping_interval", "ping_interval", "ping_timeout", 1.0, 20.0, 20.0),
)


def _foreign(text: str, name: str) -> Subject | None:
    """What a file says in the keys of other products; None: nothing that is known."""
    code = re.sub(r"(?m)^\s*(#|//).*$", "", text)
    boxes = tuple(box for read in _PROXIES for box in read(code))
    setting = _stack(code, name)
    return Subject(name, setting, boxes) if setting is not None or boxes else None


def _stack(code: str, name: str) -> Setting | None:
    for stack in _STACKS:
        intervals, timeouts = (
            _times(code, stack.interval, stack.unit_s),
            _times(code, stack.timeout, stack.unit_s),
        )
        if not intervals and not timeouts:
            continue
        python_io = stack.name == "ping_interval" and re.search(r"socketio|engineio", code)
        default_s = (25.0, 20.0) if python_io else (stack.default_interval_s, stack.default_timeout_s)
        waits = _times(code, "close_timeout", 1.0)
        keys = [re.sub(r"\[.*?\]", "_", key) for key in (stack.interval, stack.timeout)]
        return Setting(
            name=name,
            interval_s=intervals[-1] if intervals else default_s[0],
            timeout_s=timeouts[-1] if timeouts else default_s[1],
            protocol_ping=stack.protocol_ping and not python_io,
            close_wait_s=waits[-1] if waits else 0.0,
            spelling={"interval_s": (keys[0], 1 / stack.unit_s), "timeout_s": (keys[1], 1 / stack.unit_s)},
            not_checked=("records, leases and sessions: the file says nothing of them",),
        )
    if beats := _times(code, "(?i:heartbeat(?:_s)?)", 1.0):
        return Setting(
            name=name,
            interval_s=beats[-1],
            timeout_s=beats[-1] / 2,
            protocol_ping=True,
            spelling={"interval_s": ("heartbeat", 1.0)},
            not_checked=("records, leases and sessions: the file says nothing of them",),
        )
    return None


def _own(box: str, key: str, idle_s: float) -> IdleTimerProfile:
    """A built-in box with the value that a file gives it."""
    known = idle_timer_profile(box)
    title = f"{known.title.split(',')[0].split(' proxy_')[0]} ({key})"
    return known.model_copy(update={"title": title, "idle_timeout": idle_s, "status": (Status.SEEN,)})


def _nginx(code: str) -> Iterable[IdleTimerProfile]:
    for key in ("proxy_read_timeout", "grpc_read_timeout", r"proxy-read-timeout"):
        if times := _times(code, rf"(?:nginx\.ingress\.kubernetes\.io/)?{key}", 1.0):
            yield _own("nginx", key, min(times))
            return
    if re.search(r"(?m)^\s*proxy_pass\s", code):
        yield _own("nginx", "proxy_read_timeout, by default", 60.0)
    if times := _times(code, "proxy_timeout", 1.0):
        yield _own("nginx", "proxy_timeout", min(times)).model_copy(update={"counts": "any"})


def _haproxy(code: str) -> Iterable[IdleTimerProfile]:
    times = {key: _times(code, rf"timeout\s+{key}", 1e-3) for key in ("tunnel", "client", "server")}
    if times["tunnel"]:  # takes the place of the others once upgraded
        yield _own("haproxy", "timeout tunnel", min(times["tunnel"]))
    elif times["client"] or times["server"]:
        key, idle_s = min(
            ((key, min(found)) for key, found in times.items() if found), key=lambda one: one[1]
        )
        yield _own("haproxy", f"timeout {key}", idle_s)


def _apache(code: str) -> Iterable[IdleTimerProfile]:
    for key in ("ProxyWebsocketIdleTimeout", "ProxyTimeout"):
        if times := _times(code, key, 1.0):
            yield _own("apache", key, min(times))
            return
    if "ProxyPass" in code:
        times = _times(code, r"(?m:^\s*)Timeout", 1.0)
        yield _own("apache", "Timeout", min(times, default=60.0))


def _others(code: str) -> Iterable[IdleTimerProfile]:
    if times := _times(code, "stream_idle_timeout", 1.0):
        yield _own("envoy-http", "stream_idle_timeout", min(times))
    if "respondingTimeouts" in code and (times := _times(code, "idleTimeout", 1.0)):
        yield _own("traefik", "idleTimeout", min(times))
    if times := _times(code, "stream_timeout", 1.0):
        caddy = idle_timer_profile("caddy")
        yield caddy.model_copy(update={"title": "Caddy (stream_timeout)", "lifetime": min(times)})


_PROXIES: tuple[Callable[[str], Iterable[IdleTimerProfile]], ...] = (_nginx, _haproxy, _apache, _others)


def boxes_behind(text: str) -> tuple[IdleTimerProfile, ...]:
    """The boxes that `--behind` names: a profile, a profile with its own value, a time, or a proxy's file.

    `nginx`, `nginx=75s`, `50s`, `50s:reset`, `50s:drop:data`, `haproxy.cfg`. A time alone is a box that closes
    both sides and counts any packet.

    Raises:
        LintInputError: a file in which no proxy's timer is.
        UnknownProfileError: none of these.
    """
    name, _, value = text.partition("=")
    if value:
        return (_own(name, value, _duration_s(value, text)),)
    time, *words = text.split(":")
    if re.fullmatch(r"\s*\d.*", time):
        idle_s, kinds = _duration_s(time, text), {"drop", "reset", "close"}
        expiry = next((word for word in words if word in kinds), "close")
        counts = next((word for word in words if word not in kinds), "any")
        try:
            return (
                IdleTimerProfile.model_validate(
                    {
                        "name": f"box-{idle_s:g}s".replace(".", "-"),
                        "title": f"a box with an idle limit of {idle_s:g} s",
                        "idle_timeout": idle_s,
                        "expiry": expiry,
                        "counts": counts,
                        "source": "--behind",
                        "status": ["assumed"],
                    }
                ),
            )
        except ValueError as error:
            raise LintInputError(
                f"--behind {text}: allowed after the time: drop, reset or close; any, data, to_gateway or to_client"
            ) from error
    if Path(text).is_file():
        found = _foreign(Path(text).read_text(encoding="utf-8"), text)
        if found is None or not found.boxes:
            raise LintInputError(
                f"--behind {text}: no timer of nginx, HAProxy, Apache, Envoy, Traefik or Caddy in it"
            )
        return found.boxes
    return (idle_timer_profile(text),)


def _duration_s(value: str, text: str) -> float:
    try:
        seconds = float(parse_duration(value))
    except ValueError as error:
        raise LintInputError(f"--behind {text}: {error}") from error
    if not seconds > 0:
        raise LintInputError(f"--behind {text}: got {value}; allowed: above 0")
    return seconds
