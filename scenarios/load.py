"""Scenario files: YAML to a checked `Scenario`, every problem of a file in one error.

Reads files; knows nothing of runs.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from reference_server.errors import FlatlineError, unknown_name
from reference_server.liveness.heartbeat_policy import LivenessPolicy
from reference_server.presets import UnknownPresetError
from scenarios.faults.custom import Custom
from scenarios.read_yaml import YamlTooLarge, read_yaml_text, yaml_and_tree
from scenarios.schema import Scenario
from scenarios.system_b import is_b_config, read_b_config
from scenarios.target_files import TargetError, load_target

__all__ = [
    "Problem",
    "ScenarioError",
    "built_in",
    "dump_scenario",
    "load_scenario",
    "parse_scenario",
    "read_file",
    "replaced",
    "validated",
]

_HERE = Path(__file__).parent
_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in a scenario file."""

    line: int | None
    key: str
    message: str


class ScenarioError(FlatlineError):
    """A scenario or policy file cannot be used: which file, and every problem in it.

    ``raw`` is what the file says, where that could be read, for who knows more of what is wrong with it.
    """

    def __init__(
        self,
        source: str,
        problems: list[Problem],
        raw: Mapping[str, Any] | None = None,
        tree: yaml.Node | None = None,
    ) -> None:
        self.source = source
        self.problems = problems
        self.raw: Mapping[str, Any] = raw or {}
        self._tree = tree
        lines = "".join(
            f"\n  {source}{f':{p.line}' if p.line else ''}  {p.key + ': ' if p.key else ''}{p.message}"
            for p in problems
        )
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__(f"{source}: {count}{lines}")

    def with_more(self, found: Iterable[tuple[tuple[str | int, ...], str]]) -> ScenarioError:
        """The same with more problems: the location of each, as ``("thresholds", 1)``, and a sentence."""
        more = [Problem(*_locate(self._tree, loc), message) for loc, message in found]
        problems = sorted([*self.problems, *more], key=lambda p: p.line or 0)
        return ScenarioError(self.source, problems, self.raw, self._tree)


def built_in() -> dict[str, Path]:
    """The scenarios that ship with flatline, by name."""
    return {path.stem: path for path in sorted(_HERE.glob("*.yaml"))}


def load_scenario(name_or_path: str, **overrides: Any) -> Scenario:
    """Load a built-in scenario by name or a file by path; ``overrides`` replace top-level keys.

    Raises:
        ScenarioError: no such scenario, not YAML, or not a scenario; it lists every problem.
    """
    path = built_in().get(name_or_path, Path(name_or_path))
    text = _text_of(name_or_path, path, unknown_name(", and no built-in scenario", name_or_path, built_in()))
    scenario = parse_scenario(
        text, source=str(path), default_name=_name_of(path), folder=path.parent, **overrides
    )
    faults = tuple(
        fault.beside(path.parent) if isinstance(fault, Custom) else fault for fault in scenario.faults
    )
    return scenario.model_copy(update={"faults": faults})


def _text_of(name: str, path: Path, hint: str = "") -> str:
    try:
        return read_yaml_text(path)
    except UnicodeError as error:
        raise ScenarioError(name, [Problem(None, "", f"not text: {error}")]) from error
    except OSError as error:
        message = str(error.strerror) + ("" if path.exists() else hint)
        raise ScenarioError(name, [Problem(None, "", message)]) from error


def read_file(name: str, path: Path, expected: str) -> tuple[dict[str, Any], yaml.Node | None]:
    """Read a YAML file that is a mapping, and its nodes, which know their lines.

    Raises:
        ScenarioError: it is not there, is no YAML, or says a key twice.
    """
    return _mapping(_text_of(name, path), name, expected)


def _mapping(text: str, source: str, expected: str) -> tuple[dict[str, Any], yaml.Node | None]:
    try:
        raw, tree = yaml_and_tree(text)
    except YamlTooLarge as error:
        raise ScenarioError(source, [Problem(None, "", str(error))]) from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise ScenarioError(source, [Problem(line, "", f"not YAML: {error.problem}")]) from error
    except (yaml.YAMLError, UnicodeError, ValueError) as error:
        raise ScenarioError(source, [Problem(None, "", f"not YAML: {error}")]) from error
    if not isinstance(raw, dict):
        raise ScenarioError(source, [Problem(1, "", expected)])
    if twice := list(_repeated(tree)):
        raise ScenarioError(source, twice)
    return raw, tree


def _name_of(path: Path) -> str:
    """The name of a scenario that says none: its file's, in the letters that a name may have."""
    name = re.sub(r"[^a-z0-9_-]+", "_", path.stem.lower())
    return name if name[:1].isalpha() else f"scenario_{name}"


def parse_scenario(
    text: str,
    source: str = "<text>",
    default_name: str | None = None,
    folder: Path | None = None,
    **overrides: Any,
) -> Scenario:
    """Parse a scenario from YAML text. ``folder``: where the file of its target is looked for; None: here.

    Raises:
        ScenarioError: it lists every problem with its line and key.
    """
    raw, tree = _mapping(text, source, "a scenario is a mapping of keys to values")
    if is_b_config(raw):
        raw = _of_b_config(raw, source)
    elif raw and raw.keys() <= LivenessPolicy.model_fields.keys():
        told = f"flatline run host_crash --policy {source}"
        message = f"this is a policy, not a scenario; run a scenario under it, as `{told}`"
        raise ScenarioError(source, [Problem(1, "", message)])
    elif {"connect", "heartbeat", "witnesses"} <= raw.keys():
        message = f"this is a target file, not a scenario; as `flatline run frozen --target {source}`"
        raise ScenarioError(source, [Problem(1, "", message)])
    raw = {**({"name": default_name} if default_name else {}), **raw, **overrides}
    if isinstance(raw.get("target"), str):
        try:
            raw["target"] = load_target(raw["target"], None if "target" in overrides else folder)
        except TargetError as error:
            if "target" in overrides:
                raise  # the file says nothing of it
            raise ScenarioError(source, [Problem(None, "target", str(error))]) from error
    return validated(Scenario, raw, source, tree, replaced=overrides)


def replaced(scenario: Scenario, source: str, **changes: Any) -> Scenario:
    """Return a scenario with some keys replaced, mappings key by key, checked as a file is.

    Args:
        scenario: stays as it is.
        source: where the changes come from, for the error.
        changes: top-level keys; times in seconds, or as a file writes them.

    Raises:
        ScenarioError: it lists every problem with its key.
    """
    return validated(Scenario, _merged(scenario.model_dump(mode="json"), changes), source, None)


def _merged(below: Any, above: Any) -> Any:
    # A law is taken whole: half of one and half of another would be none.
    if not isinstance(below, dict) or not isinstance(above, dict) or len(above) == 1 == len(below):
        return above
    return below | {key: _merged(below.get(key), value) for key, value in above.items()}


def validated(
    model: type[_Model],
    raw: dict[str, Any],
    source: str,
    tree: yaml.Node | None,
    replaced: Collection[str] = (),
) -> _Model:
    """Make a scenario or a part of one of what a file says; the keys ``replaced`` are another's words.

    Raises:
        ScenarioError: it lists every problem with its line and key.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        problems = [_problem(detail, tree, raw, model) for detail in error.errors()]
        for n, problem in enumerate(problems):
            if problem.key.partition(".")[0] in replaced:
                problems[n] = Problem(None, f"{problem.key} (replaced)", problem.message)
        raise ScenarioError(source, sorted(problems, key=lambda p: p.line or 0), raw, tree) from error


def _of_b_config(raw: dict[str, Any], source: str) -> dict[str, Any]:
    """Make a scenario of system B's configuration: its heartbeat as meant, unless a preset is named."""
    try:
        liveness = read_b_config(raw)
    except ValueError as error:
        raise ScenarioError(source, [Problem(None, "", str(error))]) from error
    given = {key: raw[key] for key in ("name", "preset") if key in raw}
    made: dict[str, Any] = {"preset": "b-as-meant", "duration": "5m", "liveness": liveness}
    return made | given


def dump_scenario(scenario: Scenario) -> str:
    """Return a scenario as YAML with every default written out; :func:`parse_scenario` reads it back."""
    return yaml.safe_dump(scenario.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _repeated(node: yaml.Node | None) -> Iterator[Problem]:
    """Keys that stand twice in one mapping: YAML would silently take the last."""
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if key.value in seen:
                yield Problem(key.start_mark.line + 1, str(key.value), "stands twice in the same mapping")
            seen.add(key.value)
            yield from _repeated(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _repeated(value)


def _problem(detail: Any, tree: yaml.Node | None, raw: dict[str, Any], model: type[BaseModel]) -> Problem:
    if isinstance(detail.get("ctx", {}).get("error"), UnknownPresetError):
        detail = {**detail, "loc": ("preset",)}
    line, path = _locate(tree, detail["loc"])
    if raw.get("preset") and not _stands_in(raw, detail["loc"]):
        path += f" (of preset {raw['preset']})"
    message = detail["msg"].removeprefix("Value error, ")
    got = detail.get("input")
    match detail["type"]:
        case "extra_forbidden":
            known = _fields_at(detail["loc"][:-1], model)
            message = unknown_name("unknown key", str(detail["loc"][-1]), known) if known else "unknown key"
        case "union_tag_invalid":
            tag, allowed = detail["ctx"]["tag"], detail["ctx"]["expected_tags"].replace("'", "")
            message = unknown_name(f"unknown fault {tag!r}", str(tag), allowed.split(", "))
        case "missing":
            message = "is missing"
        case "string_type" if detail["loc"][0] == "thresholds":
            message = (
                f"got {got!r}; allowed: an expression, or {{threshold: EXPRESSION, abort_on_fail: true}}"
            )
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal":
            message = (
                f"got {got:g}; {message[0].lower()}{message[1:]}" if isinstance(got, int | float) else message
            )
        case "value_error":
            pass  # our own messages name the value
        case _ if isinstance(got, str | int | float):
            message = f"got {got!r}; {message[0].lower()}{message[1:]}"
    return Problem(line, path, message)


def _stands_in(raw: Any, loc: tuple[Any, ...]) -> bool:
    """Whether a file says something at a location itself."""
    for part in loc:
        if not isinstance(raw, dict | list) or (isinstance(raw, dict) and part not in raw):
            return False
        raw = raw[part]
    return True


def _locate(node: yaml.Node | None, loc: tuple[Any, ...]) -> tuple[int | None, str]:
    """Find a pydantic location in the YAML tree; parts that only pydantic has (union tags) are left out."""
    line = node.start_mark.line + 1 if node else None
    path = ""
    for part in loc:
        step: yaml.Node | None = None
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == str(part):
                    step, line = value, key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            step = node.value[part]
            line = step.start_mark.line + 1
        if isinstance(part, int):
            path += f"[{part}]"
        elif step is not None or node is None or part is loc[-1]:
            path += f".{part}" if path else str(part)
        node = step or node
    return line, path


def _fields_at(loc: tuple[Any, ...], model: type[BaseModel]) -> list[str]:
    """The keys that the schema allows at a location, as far as it is made of plain models."""
    for part in loc:
        field = model.model_fields.get(str(part))
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())] if field else []
        inner = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if not inner:
            return []
        model = inner[0]
    return list(model.model_fields)
