"""The error of a machine that cannot do what is asked of it."""

from __future__ import annotations

from reference_server.errors import MachineError

__all__ = ["CannotRun"]


class CannotRun(MachineError):
    """This machine cannot do what the scenario asks for; the message says what would help."""
