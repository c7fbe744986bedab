"""What the user requires of a policy: bounds as people write them, to checked numbers.

`60s`, `1/client-month`, `40/s`, `5kB/s`. Every problem of a set of requirements is told in one error. Nothing is
searched here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from harness.policy.tune.units import Budget, format_number, format_rate, parse_budget
from reference_server.durations import PositiveDuration, format_duration
from reference_server.errors import FlatlineError
from scenarios.rates import parse_rate

__all__ = ["DETECTION", "Limit", "Requirements", "RequirementsError", "parse_requirements"]

DETECTION = {"detect_p50": 0.5, "detect_p95": 0.95, "detect_p99": 0.99, "detect_max": 1.0}
"""Bounds of the detection latency and the quantiles they bound."""

_PER_UNIT = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*/\s*(s|h)\s*$")
_SLACK = 1e-9  # of rounding, where a figure meets its bound exactly


class RequirementsError(FlatlineError):
    """Requirements that cannot be understood; the message lists every problem."""


def _per(unit: str) -> BeforeValidator:
    def parse(value: Any) -> Any:
        if isinstance(value, float):
            return value
        match = _PER_UNIT.match(value) if isinstance(value, str) else None
        if match is None or match[2] != unit:
            raise ValueError(f"{value!r} is not a rate; allowed: a number and /{unit}, as 20/{unit}")
        return float(match[1])

    return BeforeValidator(parse)


def _several(value: Any) -> Any:
    return value if isinstance(value, tuple | list) else (value,)


@dataclass(frozen=True, slots=True)
class Limit:
    """One requirement as a bound of one figure: ``column`` × ``headroom`` ≤ ``allowed``."""

    key: str  # as on the command line
    column: str
    allowed: float
    headroom: float = 1.0

    def ratio(self, figure: Any) -> Any:
        """How far a figure (or an array of them) is up to the bound: above 1 it is broken."""
        return figure * self.headroom / self.allowed / (1 + _SLACK)

    def written(self, figure: float) -> str:
        """A figure of this kind for people, with its unit."""
        match self.column:
            case "false_per_client_day":
                return format_rate(figure)
            case "frames_per_s":
                return f"{format_number(figure)} frames/s"
            case "bytes_per_s":
                return f"{format_number(figure / 1e3)} kB/s"
            case "store_operations_per_s":
                return f"{format_number(figure)} operations/s"
            case "radio_wakeups_per_hour":
                return f"{format_number(figure)} an hour"
            case _:
                return format_duration(round(figure, 2))


class Requirements(BaseModel):
    """Bounds that a policy must keep, and what to prefer among those that do.

    At least one bound of the detection latency (a silent death to the suspicion). Rates are per client-day,
    costs of 1000 idle clients.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    detect_p50: PositiveDuration | None = None
    detect_p95: PositiveDuration | None = None
    detect_p99: PositiveDuration | None = None
    detect_max: PositiveDuration | None = None
    false_suspicions: Annotated[float, Field(gt=0), BeforeValidator(parse_rate)]
    budget: Annotated[
        tuple[Annotated[Budget, BeforeValidator(parse_budget)], ...], BeforeValidator(_several)
    ] = ()
    store_operations: Annotated[float, Field(gt=0), _per("s")] | None = None
    radio_wakeups: Annotated[float, Field(gt=0), _per("h")] | None = None
    min_failures: Annotated[int, Field(ge=1, le=8, description="misses that make a suspicion, at least")] = 2
    headroom: Annotated[
        float, Field(ge=1, description="predicted false suspicions times this must keep the bound")
    ] = 2.0
    prefer: Literal["balanced", "cost", "latency", "accuracy"] = "balanced"
    assumed: Annotated[
        tuple[str, ...], Field(description="requirements that nobody stated: defaults of the tuner")
    ] = ()

    @model_validator(mode="after")
    def _latency_is_bounded(self) -> Self:
        if all(getattr(self, name) is None for name in DETECTION):
            raise ValueError(
                f"nothing bounds the detection latency; give one of {', '.join(map(_flag, DETECTION))}"
            )
        if any(one.per_s <= 0 for one in self.budget):
            raise ValueError("budget: got 0/s; allowed: above 0")
        return self

    @property
    def limits(self) -> tuple[Limit, ...]:
        """Every requirement as a bound of a figure."""
        found = [
            Limit(_flag(name), f"{name}_s", getattr(self, name))
            for name in DETECTION
            if getattr(self, name) is not None
        ]
        found.append(Limit("false-suspicions", "false_per_client_day", self.false_suspicions, self.headroom))
        found += [Limit("budget", f"{one.unit}_per_s", one.per_s) for one in self.budget]
        if self.store_operations is not None:
            found.append(Limit("max-store-ops", "store_operations_per_s", self.store_operations))
        if self.radio_wakeups is not None:
            found.append(Limit("radio-wakeups", "radio_wakeups_per_hour", self.radio_wakeups))
        return tuple(found)

    def relaxed(self, limit: Limit, allowed: float) -> Requirements:
        """The same requirements with one of their limits moved."""
        if limit.key == "budget":
            unit = limit.column.removesuffix("_per_s")
            budget = tuple(Budget(one.unit, allowed) if one.unit == unit else one for one in self.budget)
            return self.model_copy(update={"budget": budget})
        names = {"max-store-ops": "store_operations"}
        name = names.get(limit.key, limit.key.replace("-", "_"))
        return self.model_copy(update={name: allowed})


def parse_requirements(**given: Any) -> Requirements:
    """Check requirements as they come from a command line; None stands for "not given".

    Without any bound of the detection latency `detect_p99` is 60 s, without `false_suspicions` it is one in
    a client-month; ``assumed`` then names them.

    Raises:
        RequirementsError: it lists every problem.
    """
    stated = {name: value for name, value in given.items() if value is not None and value != ()}
    assumed = {}
    if not DETECTION.keys() & stated.keys():
        assumed["detect_p99"] = "60s"
    if "false_suspicions" not in stated:
        assumed["false_suspicions"] = "1/client-month"
    try:
        return Requirements.model_validate({**stated, **assumed, "assumed": tuple(map(_flag, assumed))})
    except ValidationError as error:
        problems = [_problem(detail) for detail in error.errors()]
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = "".join(f"\n  {problem}" for problem in problems)
        raise RequirementsError(f"requirements: {count}{lines}") from error


def _flag(name: str) -> str:
    return name.replace("_", "-")


def _problem(detail: Any) -> str:
    message = detail["msg"].removeprefix("Value error, ")
    key = _flag(str(detail["loc"][0])) if detail["loc"] else ""
    if detail["type"] == "extra_forbidden":
        allowed = [_flag(name) for name in Requirements.model_fields if name != "assumed"]
        return f"{key}: unknown requirement; allowed: {', '.join(allowed)}"
    if detail["type"] != "value_error" and not isinstance(detail.get("input"), dict):
        message = f"got {detail.get('input')!r}; {message[0].lower()}{message[1:]}"
    return f"{key}: {message}" if key else message
