"""Imports go one way: reference_server <- scenarios <- harness, and reports <- harness."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "reference_server": {"reference_server"},
    "scenarios": {"scenarios", "reference_server"},
    "reports": {"reports"},
    "harness": {"harness", "scenarios", "reference_server", "reports"},
}
# What this room loads runs under gevent, after Locust's monkey patch; nothing else may.
GENERATOR = ROOT / "harness" / "real" / "generator"


def imported(path: Path) -> set[str]:
    """Every module that a file imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module)
    return names


def files(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found, f"no code in {package}"
    return found


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_go_one_way(package: str) -> None:
    for path in files(package):
        ours = {name.partition(".")[0] for name in imported(path)} & MAY_IMPORT.keys()
        assert ours <= MAY_IMPORT[package], f"{path.relative_to(ROOT)} imports {ours - MAY_IMPORT[package]}"


def test_only_the_generator_imports_locust_and_gevent() -> None:
    for package in MAY_IMPORT:
        for path in files(package):
            roots = {name.partition(".")[0] for name in imported(path)}
            if roots & {"locust", "gevent", "geventhttpclient"}:
                assert path.parent == GENERATOR, path


def test_nothing_else_imports_the_generator() -> None:
    for package in MAY_IMPORT:
        for path in files(package):
            if path.parent != GENERATOR:
                assert not any(n.startswith("harness.real.generator") for n in imported(path)), path


def test_detectors_are_pure() -> None:
    """Time is an argument: no clock, no socket, no event loop."""
    allowed = {"__future__", "array", "collections", "collections.abc", "enum", "math", "typing"}
    allowed |= {"numpy", "pydantic", "reference_server.durations", "reference_server.events"}
    for path in files("reference_server/liveness"):
        others = {n for n in imported(path) if not n.startswith("reference_server.liveness.")}
        assert others <= allowed, path
