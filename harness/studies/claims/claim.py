"""The claims as data: from `data/claims.yaml` to one claim for each preset, fault and milestone."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from reference_server.durations import Duration, PositiveDuration
from reference_server.presets import load_presets

__all__ = ["Case", "Claim", "Claims", "Milestone", "load_claims"]

_DATA = Path(__file__).parents[2] / "data" / "claims.yaml"
Milestone = Literal["suspected", "store_cleared", "locked_out"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Case(_Record):
    """What a document's case is here: one kind of fault."""

    case: str
    fault: str
    means: Annotated[str, Field(alias="is")]


class Claim(_Record):
    """What a document promises of some presets, one fault and some milestones. Seconds from the fault."""

    presets: tuple[str, ...]
    fault: str
    milestones: tuple[Milestone, ...]
    text: str
    lo: Duration = 0.0
    hi: PositiveDuration | None = None
    never: bool = False
    reading: str = ""
    source: str

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if (self.hi is None) != self.never:
            raise ValueError(f"{self.text!r}: allowed: hi, or never: true")
        if unknown := set(self.presets) - set(load_presets()):
            raise ValueError(f"{self.text!r}: no such preset: {', '.join(sorted(unknown))}")
        return self

    @property
    def hi_s(self) -> float:
        """The latest time; infinite for one that is never to come."""
        return math.inf if self.hi is None else self.hi


class Claims(_Record):
    """All cases and claims."""

    cases: tuple[Case, ...]
    claims: tuple[Claim, ...]

    @property
    def faults(self) -> tuple[str, ...]:
        """The kinds of fault, in the order of the cases."""
        return tuple(case.fault for case in self.cases)

    def case_of(self, fault: str) -> str:
        """The document's word for a fault."""
        return next((case.case for case in self.cases if case.fault == fault), fault)

    def find(self, preset: str, fault: str, milestone: str) -> Claim | None:
        """The claim about a cell; None: nothing is claimed."""
        for claim in self.claims:
            if preset in claim.presets and fault == claim.fault and milestone in claim.milestones:
                return claim
        return None


@cache
def load_claims() -> Claims:
    """Read the claims."""
    return Claims.model_validate(yaml.safe_load(_DATA.read_text(encoding="utf-8")))
