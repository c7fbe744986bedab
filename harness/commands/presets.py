"""`flatline presets`: which documented systems there are, what each sets, and what it gets wrong."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from harness.commands.terminal import errors, show_markdown, show_table
from reference_server.presets import Preset, environment, environments, find_preset, load_presets

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command("presets")(presets_command)


def presets_command(
    name: Annotated[
        str | None, typer.Argument(help="explain this one; none: list all", show_default=False)
    ] = None,
) -> None:
    """List the presets (documented systems before and after their fixes), or explain one."""
    if name is not None:
        with errors():
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
        ("environment of system B", "sets"),
        [(one, _settings(environment(one))) for one in environments()],
    )


def explained(preset: Preset) -> str:
    """Return all about a preset as Markdown."""
    range_s = preset.policy.detection_range_s
    silent = (
        f"\nA silent client is found {range_s[0]:g} to {range_s[1]:g} s after its death.\n"
        if range_s is not None and preset.detector.kind == "ping"
        else ""
    )
    told = {"liveness": preset.liveness, "detector": preset.detector.model_dump(mode="json"),
            "records": preset.records, "sessions": {"second_login": preset.second_login}}  # fmt: skip
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
    return (
        "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    )
