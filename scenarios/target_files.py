"""Target files: YAML to a checked `Target`, every problem in one error, and the targets that ship with flatline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from reference_server.errors import FlatlineError, unknown_name
from scenarios.read_yaml import read_yaml
from scenarios.target import Target

__all__ = ["TargetError", "bundled_targets", "load_target", "parse_target", "told_otherwise"]

_FOLDER = Path(__file__).with_name("targets")


class TargetError(FlatlineError):
    """A target cannot be used: which file, which key, what is allowed."""


def bundled_targets() -> dict[str, Path]:
    """The targets that ship with flatline, by name."""
    return {path.stem: path for path in sorted(_FOLDER.glob("*.yaml"))}


def load_target(name_or_path: str, beside: Path | None = None) -> Target:
    """Read a bundled target by name, or a file.

    Args:
        name_or_path: of it.
        beside: the folder that a relative path counts from; None: the working directory.

    Raises:
        TargetError: it is not there, or is no target; it lists every problem.
    """
    path = bundled_targets().get(name_or_path) or (beside or Path()) / name_or_path
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        known = ", ".join(bundled_targets())
        raise TargetError(
            f"{name_or_path}: no target file: {error.strerror}; bundled targets: {known}"
        ) from error
    except UnicodeError as error:
        raise TargetError(f"{name_or_path}: not text: {error}") from error
    return parse_target(text, str(path), str(path.resolve().parent))


def parse_target(text: str, source: str = "<text>", folder: str = "") -> Target:
    """Read a target from YAML text.

    Raises:
        TargetError: it lists every problem with its key.
    """
    try:
        raw = read_yaml(text)
    except (yaml.YAMLError, ValueError) as error:
        raise TargetError(f"{source}: not YAML: {error}") from error
    if not isinstance(raw, dict):
        raise TargetError(f"{source}: a target is a mapping of keys to values")
    try:
        return Target.model_validate({"folder": folder} | raw)
    except ValidationError as error:
        problems = [_said(detail) for detail in error.errors()]
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = "".join(f"\n  {source}  {problem}" for problem in problems)
        raise TargetError(f"{source}: {count}{lines}") from error


def told_otherwise(target: Target, settings: Sequence[str]) -> Target | None:
    """A negative control: the target whose server is told other times than its law has, as ``timeout=22s``.

    Raises:
        TargetError: no such time, or one that the server cannot be told.
    """
    if not settings:
        return None
    changes = dict(setting.partition("=")[::2] for setting in settings)
    if wrong := [name for name in changes if name not in target.heartbeat.settable]:
        allowed = ", ".join(target.heartbeat.settable) or "none: heartbeat.settable is empty"
        raise TargetError(
            f"--negative-control {wrong[0]}: {target.target} cannot be told that; allowed: {allowed}"
        )
    raw = target.model_dump(mode="json")
    raw["heartbeat"] |= changes
    return parse_target(yaml.safe_dump(raw), "--negative-control", target.folder)


def _said(detail: Any) -> str:
    key = ".".join(map(str, detail["loc"]))
    message = detail["msg"].removeprefix("Value error, ")
    match detail["type"]:
        case "extra_forbidden":
            known = _fields_at(detail["loc"][:-1])
            return unknown_name(f"{key}: unknown key", str(detail["loc"][-1]), known)
        case "missing":
            return f"{key}: is missing"
        case "value_error":
            return f"{key}: {message}"
    return f"{key}: got {detail.get('input')!r}; {message[0].lower()}{message[1:]}"


def _fields_at(loc: tuple[Any, ...]) -> list[str]:
    model: Any = Target
    for part in loc:
        field = model.model_fields.get(str(part))
        kinds = [field.annotation, *getattr(field.annotation, "__args__", ())] if field else []
        inner = [kind for kind in kinds if hasattr(kind, "model_fields")]
        if not inner:
            return []
        model = inner[0]
    return [name for name in model.model_fields if name != "folder"]
