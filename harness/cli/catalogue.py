"""`flatline presets`: which documented systems there are, what each sets, and what it gets wrong.

`flatline faults`: the catalogue of faults, as a list and one by one. Describes; injects nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.terminal import say, show_markdown, show_table
from reference_server.errors import Exit, unknown_name

if TYPE_CHECKING:
    from reference_server.presets import Preset
    from scenarios.faults import ClientFault, ServerFault

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command("faults")(faults_command)
    app.command("presets")(presets_command)


def faults_command(
    name: Annotated[
        str | None, typer.Argument(help="one of them: its drawing, meaning, keys and an example")
    ] = None,
) -> None:
    """List what can be made to fail; with a name: its drawing, meaning, keys and an example."""
    from scenarios.faults import catalogue

    known = catalogue()
    if name is None:
        header = ("fault", "side", "what happens", "what the peer sees", "real mechanism", "model", "theory")
        show_table(header, [_row(fault) for fault in known.values()])
        return
    if name not in known:
        say(f"error: {unknown_name(f'no fault {name!r}', name, known)}", "red")
        raise typer.Exit(Exit.BAD_INPUT)
    _show(known[name])


def _row(fault: type[ClientFault | ServerFault]) -> tuple[str, ...]:
    return (
        fault.kind,
        fault.side,
        fault.summary,
        fault.on_the_wire,
        fault.mechanism if fault.is_real() else "–",
        "yes" if fault.is_simulated() else "–",
        fault.theory or "–",
    )


def _show(fault: type[ClientFault | ServerFault]) -> None:
    from scenarios.faults import FAULTS, INCIDENTS, ClientFault

    print(f"{fault.kind} ({fault.side})\n\n{fault.drawing()}\n")
    print(f"peer sees      {fault.on_the_wire}")
    print(f"real           {fault.mechanism if fault.is_real() else 'no: simulated only'}")
    if fault.is_real():
        print(f"cannot show    {fault.cannot_show}")
    print(f"simulated      {'yes' if fault.is_simulated() else 'no'}")
    print(f"theory         {fault.theory or 'no law'}\n")
    keys = {**FAULTS, **INCIDENTS}[fault.kind]
    rows = [
        (key, _default(field.is_required(), field.default), field.description or "")
        for key, field in keys.model_fields.items()
        if key != "kind"
    ]
    show_table(("key", "default", "meaning"), rows)
    block = "faults" if issubclass(fault, ClientFault) else "incidents"
    print(f"\nexample\n{block}:\n  - {fault.example}")


def _default(required: bool, value: Any) -> str:
    from pydantic import BaseModel
    from pydantic_core import PydanticUndefined

    if required or value is PydanticUndefined:
        return "required"
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    return "null" if value is None else str(value)


def presets_command(
    name: Annotated[
        str | None, typer.Argument(help="explain this one; none: list all", show_default=False)
    ] = None,
) -> None:
    """List the presets (documented systems before and after their fixes), or explain one."""
    from reference_server.presets import find_preset, load_presets
    from scenarios.system_b import ENVIRONMENTS

    if name is not None:
        show_markdown(explained(find_preset(name)))
        return
    show_table(
        ("name", "what", "layers", "what it gets wrong, first of all"),
        [
            (one.name, one.title, ", ".join(one.layers), _sentence(one.wrong[0]))
            for one in load_presets().values()
        ],
    )
    show_table(
        ("environment of system B", "sets"), [(one, _settings(sets)) for one, sets in ENVIRONMENTS.items()]
    )


def explained(preset: Preset) -> str:
    """Return all about a preset as Markdown."""
    range_s = preset.policy.detection_range_s
    silent = (
        f"\nA silent client is found {range_s[0]:g} to {range_s[1]:g} s after its death.\n"
        if range_s is not None and preset.detector.kind == "ping"
        else ""
    )
    told = {
        "liveness": preset.liveness,
        "detector": preset.detector.model_dump(mode="json"),
        "records": preset.records,
        "sessions": preset.scenario_keys["sessions"],
    }
    settings = {f"{part}.{key}": v for part, keys in told.items() for key, v in keys.items()}
    return "\n".join(
        [
            f"# {preset.name}: {preset.title}\n",
            f"{preset.explains}\n{silent}",
            f"Layers: {', '.join(preset.layers)}.\n",
            "Sets (the rest are the defaults):\n",
            *(f"- `{key}`: {_value(value)}" for key, value in settings.items()),
            "\nWhat it gets wrong:\n",
            *(f"- {wrong}" for wrong in preset.wrong),
            f"\nSource: {preset.source}.",
            f"\nUse: `preset: {preset.name}` in a scenario, or `flatline serve --preset {preset.name}`.",
        ]
    )


def _sentence(text: str) -> str:
    return " ".join(text.split())


def _settings(keys: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in keys.items())


def _value(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
