"""What the parts of a scenario have in common: frozen models that know no other keys, and shares."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

__all__ = ["Part", "Share"]


def _share(value: Any) -> Any:
    if isinstance(value, str) and value.strip().endswith("%"):
        return float(value.strip()[:-1]) / 100
    return value


Share = Annotated[
    float,
    Field(ge=0, le=1),
    BeforeValidator(_share),
    PlainSerializer(lambda share: f"{share * 100:.10g}%", return_type=str, when_used="json"),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0, "maximum": 1},
                {"type": "string", "pattern": r"^\d+(\.\d+)?%$"},
            ]
        }
    ),
]
"""A fraction, written as 0.03 or 3%."""


class Part(BaseModel):
    """Base of all parts: frozen, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
