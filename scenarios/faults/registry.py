"""The catalogue: every kind of fault and incident by its name.

Finds them by itself: each module of this folder is loaded, and each class made from `Fault` or `Incident` in them is
one. A new fault is a new file here.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Union

from pydantic import Field, GetPydanticSchema, TypeAdapter

from scenarios.faults.base import ClientFault, Fault, ScenarioItem, ServerFault
from scenarios.faults.incidents import Incident

__all__ = ["FAULTS", "INCIDENTS", "AnyFault", "AnyIncident", "catalogue", "incident_of", "read_parameters"]


def _concrete(base: type[ScenarioItem]) -> list[type[Any]]:
    """The classes made from one that say their kind, and the likes of theirs, by kind."""
    found = [one for made in base.__subclasses__() for one in (made, *_concrete(made))]
    return sorted((one for one in found if one.kind_name()), key=lambda one: one.kind_name())


for _module in pkgutil.iter_modules([str(Path(__file__).parent)]):
    importlib.import_module(f"{__package__}.{_module.name}")

FAULTS: Mapping[str, type[Fault]] = {one.kind_name(): one for one in _concrete(Fault)}
"""Keys of the faults of one client, by kind."""

INCIDENTS: Mapping[str, type[Incident]] = {one.kind_name(): one for one in _concrete(Incident)}
"""Keys of what happens to nodes, to the store or to everybody at once, by kind."""


def _one_of(models: Mapping[str, type[ScenarioItem]]) -> GetPydanticSchema:
    union: Any = Annotated[Union[tuple(models.values())], Field(discriminator="kind")]  # noqa: UP007
    return GetPydanticSchema(lambda _source, handler: handler(union))


AnyFault = Annotated[Fault, _one_of(FAULTS)]
"""For a model's field: any of the faults, told apart by ``kind``."""

AnyIncident = Annotated[Incident, _one_of(INCIDENTS)]
"""For a model's field: any of the incidents, told apart by ``kind``."""


def catalogue() -> dict[str, type[ClientFault] | type[ServerFault]]:
    """Everything that can happen, clients' faults first, by kind."""
    return {kind: one.drawn for kind, one in (*FAULTS.items(), *INCIDENTS.items())}


def incident_of(kind: str) -> type[ServerFault]:
    """The words and flags of an incident in a log; of one that this version does not have: none."""
    return INCIDENTS[kind].drawn if kind in INCIDENTS else ServerFault


def read_parameters(kind: str, params: Mapping[str, Any]) -> Any:
    """Read what was drawn for a planned fault or incident: an object of its kind's class in the catalogue.

    Raises:
        KeyError: no such kind: a plan of another version.
        ValueError: not its parameters.
    """
    return _reader(kind).validate_python(params)


@cache
def _reader(kind: str) -> TypeAdapter[Any]:
    return TypeAdapter(catalogue()[kind])
