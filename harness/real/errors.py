"""The error of a machine that cannot do what is asked of it."""

from __future__ import annotations

__all__ = ["CannotRun"]


class CannotRun(RuntimeError):
    """This machine cannot do what the scenario asks for; the message says what would help."""
