"""`flatline faults`: the catalogue of faults, as a list and one by one. Describes; injects nothing."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from harness.catalogue import AnyFault, ClientFault, catalogue
from harness.commands.terminal import say, show_table
from harness.exits import Exit
from scenarios.fault_kinds import fault_model

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command("faults")(faults_command)


def faults_command(
    name: Annotated[
        str | None, typer.Argument(help="one of them: its drawing, meaning, keys and an example")
    ] = None,
) -> None:
    """List what can be made to fail; with a name: its drawing, meaning, keys and an example."""
    known = catalogue()
    if name is None:
        header = (
            "fault",
            "side",
            "what happens",
            "what the peer sees",
            "real mechanism",
            "model",
            "theory",
        )
        show_table(header, [_row(fault) for fault in known.values()])  # fmt: skip
        return
    if name not in known:
        say(f"error: no fault {name!r}; allowed: {', '.join(known)}", "red")
        raise typer.Exit(Exit.BAD_INPUT)
    _show(known[name])


def _row(fault: AnyFault) -> tuple[str, ...]:
    return (
        fault.kind,
        fault.side,
        fault.summary,
        fault.on_the_wire,
        fault.mechanism if fault.is_real else "–",
        "yes" if fault.is_simulated else "–",
        fault.theory or "–",
    )


def _show(fault: AnyFault) -> None:
    print(f"{fault.kind} ({fault.side})\n\n{fault.drawing()}\n")
    print(f"peer sees      {fault.on_the_wire}")
    print(f"real           {fault.mechanism if fault.is_real else 'no: simulated only'}")
    if fault.is_real:
        print(f"cannot show    {fault.cannot_show}")
    print(f"simulated      {'yes' if fault.is_simulated else 'no'}")
    print(f"theory         {fault.theory or 'no law'}\n")
    rows = [
        (key, _default(field.is_required(), field.default), field.description or "")
        for key, field in fault_model(fault.kind).model_fields.items()
        if key != "kind"
    ]
    show_table(("key", "default", "meaning"), rows)
    block = "faults" if isinstance(fault, ClientFault) else "incidents"
    print(f"\nexample\n{block}:\n  - {fault.example}")


def _default(required: bool, value: Any) -> str:
    if required or value is PydanticUndefined:
        return "required"
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    return "null" if value is None else str(value)
