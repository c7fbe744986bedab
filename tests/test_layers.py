"""Imports go one way: the contracts of pyproject.toml, and what they cannot say."""

from __future__ import annotations

import ast
import logging
from pathlib import Path

import pytest
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

ROOT = Path(__file__).parent.parent


def test_the_contracts_are_kept(capsys: pytest.CaptureFixture[str]) -> None:
    loggers = [one for one in logging.root.manager.loggerDict.values() if isinstance(one, logging.Logger)]
    try:
        status = lint_imports(str(ROOT / "pyproject.toml"))
    finally:  # it silences every logger that there is, for the tests after this one too
        for logger in loggers:
            logger.disabled = False
    assert status == EXIT_STATUS_SUCCESS, capsys.readouterr().out


def test_detectors_are_pure() -> None:
    """Time is an argument; these are all the modules that they need, a clock, a socket or a loop is not among them."""
    allowed = {"__future__", "array", "collections", "collections.abc", "enum", "math", "typing"}
    allowed |= {"numpy", "pydantic", "reference_server.durations", "reference_server.events"}
    paths = sorted((ROOT / "reference_server" / "liveness").rglob("*.py"))
    assert paths
    for path in paths:
        names = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module)
        assert {n for n in names if not n.startswith("reference_server.liveness.")} <= allowed, path
