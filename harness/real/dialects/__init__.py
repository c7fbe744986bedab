"""Dialects: what a client says above WebSocket to a server that is not ours. Sans I/O, one file each.

From a name, or FILE.py:CLASS, to the class (`find_dialect`); a file in this folder is found without a list, and so is
an entry point `flatline.dialects` of an installed package. Opens no socket and reads no clock.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from harness.real.dialects.base import (
    Answer,
    Dialect,
    DialectError,
    Item,
    Message,
    PeerGone,
    Ready,
    Refused,
    Who,
)

__all__ = [
    "Answer",
    "Dialect",
    "DialectError",
    "Item",
    "Message",
    "PeerGone",
    "Ready",
    "Refused",
    "Who",
    "dialects",
    "find_dialect",
]


@cache
def dialects() -> Mapping[str, type[Dialect]]:
    """Every dialect of this folder and of installed packages, by name."""
    found: dict[str, type[Dialect]] = {}
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        for one in _classes(importlib.import_module(f"{__name__}.{module.name}")):
            found[one.name] = one
    for entry in entry_points(group="flatline.dialects"):
        found[entry.name] = entry.load()
    return dict(sorted(found.items()))


def find_dialect(name: str, folder: Path | None = None) -> type[Dialect]:
    """Return a dialect.

    Args:
        name: of it, or FILE.py:CLASS.
        folder: where the file is looked for; None: the working directory.

    Raises:
        DialectError: there is none of that name; it lists those that there are.
    """
    if name in dialects():
        return dialects()[name]
    path, colon, wanted = name.rpartition(":")
    if not colon or not path.endswith(".py"):
        raise DialectError(f"dialect {name!r}; allowed: {', '.join(dialects())}, or FILE.py:CLASS")
    file = (folder or Path()) / path
    if not file.exists():
        raise DialectError(f"dialect {name}: no file {file}")
    found = getattr(_module(file.resolve()), wanted, None)
    if not (inspect.isclass(found) and issubclass(found, Dialect)):
        raise DialectError(f"dialect {name}: {wanted} is no Dialect of harness.real.dialects")
    return found


@cache
def _module(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"flatline_dialect_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise DialectError(f"{file}: {type(error).__name__}: {error}") from error
    return module


def _classes(module: ModuleType) -> list[type[Dialect]]:
    return [
        one
        for one in vars(module).values()
        if inspect.isclass(one)
        and issubclass(one, Dialect)
        and one.__module__ == module.__name__
        and one.name
    ]


def check_options(dialect: type[Dialect], options: Mapping[str, Any]) -> None:
    """Return if a dialect takes these options.

    Raises:
        DialectError: it does not; it says what is wrong.
    """
    who = Who("c0x1", "user-0", 0, 30.0)
    known = inspect.signature(dialect).parameters
    if unknown := [name for name in options if name not in list(known)[1:]]:
        allowed = ", ".join(list(known)[1:]) or "none"
        raise DialectError(f"dialect {dialect.name}: option {unknown[0]!r}; allowed: {allowed}")
    dialect(who, **options)
