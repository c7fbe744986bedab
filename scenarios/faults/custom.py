"""A fault of your own, from a file or a module of yours: `docs/write-your-own-fault.md`.

    scenario: {kind: custom, uses: half_answer.py:HalfAnswer, params: {…}}
    client           |  network  |  gateway
    your `real`      |     ?     |  what the peer sees is yours to say
    your `simulated` |     ?     |  the same in the model

Meaning: whatever the catalogue does not have. Either half may be missing; the engine that lacks it refuses the
scenario before anything starts. It runs your code in the generator and in the model: use only what you trust.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

from pydantic import Field

from reference_server.errors import FlatlineError
from scenarios.distributions import Law
from scenarios.faults.base import ClientFault, Fault, ModelClient, PlannedFault, RealClient

__all__ = ["Custom", "CustomFaultError", "DrawnCustom", "load_custom"]


class CustomFaultError(FlatlineError):
    """A fault of the user's own cannot be used: which, and why."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"fault {what}: {why}")
        self.what = what
        self.why = why


@dataclass(frozen=True)
class DrawnCustom(ClientFault):
    """Stands in the catalogue for all of them; what is done is the user's class."""

    uses: str
    params: dict[str, Any]  # the arguments of the user's class

    kind = "custom"
    summary = "a class of your own"
    on_the_wire = "what your class does"
    mechanism = "your own"
    cannot_show = "what your class says"
    may_not_happen = True
    example = "{kind: custom, uses: my_fault.py:MyFault, share: 10%, at: 60s, params: {}}"

    @property
    def behaviour(self) -> ClientFault:
        """An object of the user's class.

        Raises:
            CustomFaultError: see :func:`load_custom`, or it does not take these parameters.
        """
        fault = load_custom(self.uses)
        try:
            return fault(**self.params)
        except Exception as error:
            raise CustomFaultError(
                self.uses, f"it cannot be made with params {self.params}: {error!r}"
            ) from error

    @property
    def silent(self) -> bool:
        """As the user's class says; where its file is gone meanwhile: no."""
        try:
            return self.behaviour.silent
        except CustomFaultError:
            return False

    def real(self, client: RealClient, fault: PlannedFault) -> None:
        """As the user's class does."""
        self.behaviour.real(client, fault)

    def simulated(self, client: ModelClient, fault: PlannedFault) -> None:
        """As the user's class does."""
        self.behaviour.simulated(client, fault)


class Custom(Fault):
    """A fault of your own: a class in a file or a module. It runs that code: use only what you trust."""

    drawn = DrawnCustom

    kind: Literal["custom"]
    uses: Annotated[
        str,
        Field(
            pattern=r"^[^:]+:[A-Za-z_]\w*$",
            description="path/to/file.py:Class, seen from the scenario file, or package.module:Class",
        ),
    ]
    params: Annotated[dict[str, Any], Field(default_factory=dict, description="the arguments of the class")]
    heal_after: Annotated[
        Law | None, Field(description="law of its length, for the class to use; null: never")
    ] = None

    def beside(self, folder: Path) -> Custom:
        """The same with a file's path made absolute: a run directory is read from elsewhere."""
        file, _, name = self.uses.rpartition(":")
        if not file.endswith(".py") or Path(file).is_absolute():
            return self
        return self.model_copy(update={"uses": f"{(folder / file).resolve()}:{name}"})


@cache
def load_custom(uses: str) -> type[ClientFault]:
    """Load ``path/to/file.py:Class`` or ``package.module:Class``.

    Raises:
        CustomFaultError: no such file, module or class; its import fails; it is no ClientFault, has neither half,
            or does not say its mechanism.
    """
    source, _, name = uses.rpartition(":")
    found = getattr(_module(uses, source), name, None)
    if not (isinstance(found, type) and issubclass(found, ClientFault)):
        what = "has no such class" if found is None else "that is no scenarios.faults.ClientFault"
        raise CustomFaultError(uses, what)
    if not (found.is_real() or found.is_simulated()):
        raise CustomFaultError(uses, "neither `real` nor `simulated`; allowed: one of them or both")
    if found.is_real() and not (found.mechanism and found.cannot_show):
        raise CustomFaultError(
            uses, "a real half says its `mechanism` and what that `cannot_show`: the report states both"
        )
    return found


def _module(uses: str, source: str) -> ModuleType:
    try:
        if not source.endswith(".py"):
            return importlib.import_module(source)
        path = Path(source).resolve()
        name = f"flatline_custom_{path.stem}_{abs(hash(path)):x}"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # a class finds its module's docstring there
        spec.loader.exec_module(module)
        return module
    except Exception as error:
        raise CustomFaultError(uses, f"its code does not load: {error!r}") from error
