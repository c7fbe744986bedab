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
from functools import cache
from pathlib import Path
from types import ModuleType

from harness.catalogue.fault import ClientFault
from reference_server.errors import FlatlineError

__all__ = ["Custom", "CustomFaultError", "load_custom"]


class CustomFaultError(FlatlineError):
    """A fault of the user's own cannot be used: which, and why."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"fault {what}: {why}")
        self.what = what
        self.why = why


class Custom(ClientFault):
    """Stands in the catalogue for all of them; what is done is the user's class."""

    kind = "custom"
    summary = "a class of your own"
    on_the_wire = "what your class does"
    mechanism = "your own"
    cannot_show = "what your class says"
    is_real = is_simulated = True  # of this placeholder: a class of yours has what it has
    example = "{kind: custom, uses: my_fault.py:MyFault, share: 10%, at: 60s, params: {}}"


@cache
def load_custom(uses: str) -> ClientFault:
    """Load ``path/to/file.py:Class`` or ``package.module:Class``.

    Raises:
        CustomFaultError: no such file, module or class; its import fails; it is no ClientFault, has neither half,
            or does not say its mechanism.
    """
    source, _, name = uses.rpartition(":")
    module = _module(uses, source)
    found = getattr(module, name, None)
    if not (isinstance(found, type) and issubclass(found, ClientFault)):
        what = "has no such class" if found is None else "that is no harness.catalogue.ClientFault"
        raise CustomFaultError(uses, what)
    try:
        fault = found()
    except Exception as error:
        raise CustomFaultError(uses, f"it cannot be made without arguments: {error!r}") from error
    if not (fault.is_real or fault.is_simulated):
        raise CustomFaultError(uses, "neither `real` nor `simulated`; allowed: one of them or both")
    if fault.is_real and not (fault.mechanism and fault.cannot_show):
        raise CustomFaultError(
            uses,
            "a real half says its `mechanism` and what that `cannot_show`: the report states both",
        )
    return fault


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
