"""The tree of errors: what the docstring draws is what there is."""

from __future__ import annotations

import importlib
import pkgutil

import harness
import reference_server
import reports
import scenarios
from reference_server import errors
from reference_server.errors import FlatlineError

OURS = ("reference_server", "scenarios", "harness", "reports")
GEVENT = "harness.real.generator"  # its import patches the process, and no error of the tree is its own


def drawn(error: type[FlatlineError], before: str = "") -> list[str]:
    """Lines below an error: its direct subclasses by name, each with its own below it."""
    found = sorted(
        (one for one in error.__subclasses__() if one.__module__.startswith(OURS)),
        key=lambda one: one.__name__,
    )
    lines = []
    for one in found:
        last = one is found[-1]
        lines.append(f"{before}{'└── ' if last else '├── '}{one.__name__}")
        lines += drawn(one, before + ("    " if last else "│   "))
    return lines


def test_the_drawing_is_complete_and_true() -> None:
    for package in (reference_server, scenarios, harness, reports):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.startswith(GEVENT) and not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    tree = "\n".join(["FlatlineError", *drawn(FlatlineError)])
    is_drawn = (errors.__doc__ or "").partition("::\n\n")[2].partition("\n\n")[0]
    assert is_drawn.replace("\n    ", "\n").strip() == tree, f"should be:\n{tree}"
