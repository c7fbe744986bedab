"""What a rule of lint finds, and the numbers that it proposes. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

__all__ = ["Finding", "Severity", "round_down_s", "round_up_s"]


class Severity(StrEnum):
    """How bad it is, the worst first."""

    ERROR = "error"  # healthy clients are dropped or not shown, or dead ones are not noticed as promised
    WARNING = "warning"  # it works until something small goes wrong
    INFO = "info"  # good to know


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong, why (with numbers), and what to do about it (with a value).

    Attributes:
        advice: what to do, without the values of ``changes``.
        changes: the fix as new values of `Setting`'s fields; empty where the fix lies elsewhere.
        middlebox: name of the box on the way that it is about, or empty.
        fix: ``advice`` with the values that go together with those of all other findings; `lint` writes it.
    """

    severity: Severity
    rule: str
    message: str
    reason: str
    advice: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)
    middlebox: str = ""
    fix: str = ""


def _step_s(seconds: float) -> float:
    return 5.0 if seconds >= 20 else 1.0 if seconds >= 2 else 0.1


def round_down_s(seconds: float) -> float:
    """A number that people write: a multiple of 5 s, of 1 s below 20 s, of 0.1 s below 2 s."""
    step = _step_s(seconds)
    return round(math.floor(seconds / step + 1e-9) * step, 6) or seconds


def round_up_s(seconds: float) -> float:
    """As `round_down_s`, but not below ``seconds``."""
    step = _step_s(seconds)
    return round(math.ceil(seconds / step - 1e-9) * step, 6)
