"""YAML of strangers: files and texts to plain values, within bounds of size and depth, however they are written.

Everything of ours that reads YAML from outside reads it here. A few lines of YAML may stand for more values than a
machine holds (aliases of aliases) or for a depth that no reader bears: such a text is refused before it is built.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

__all__ = ["YamlTooLarge", "read_yaml", "read_yaml_text", "yaml_and_tree"]

_MOST_CHARACTERS = 1_000_000
_MOST_DEPTH = 50
_MOST_VALUES = 200_000  # each as often as an alias names it


class YamlTooLarge(yaml.YAMLError):
    """A text that is not read: it stands for too much."""


class _Loader(yaml.SafeLoader):
    """Knows how deep it is: `compose_node` calls itself."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        if self.depth > _MOST_DEPTH:
            line = self.peek_event().start_mark.line + 1  # type: ignore[no-untyped-call]
            raise YamlTooLarge(f"line {line}: nested more than {_MOST_DEPTH} levels deep")
        try:
            node = super().compose_node(parent, index)
        finally:
            self.depth -= 1
        is_key = isinstance(parent, yaml.MappingNode) and index is None
        if is_key and isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:bool":
            node.tag = "tag:yaml.org,2002:str"  # a key is a word: YAML 1.1 takes `on:` for true
        return node


def read_yaml(text: str) -> Any:
    """Return what a YAML text says.

    Raises:
        yaml.YAMLError: it is none, or too large (`YamlTooLarge`).
        ValueError: a value is none of its kind, as a date.
    """
    return yaml_and_tree(text)[0]


def yaml_and_tree(text: str) -> tuple[Any, yaml.Node | None]:
    """Return what a YAML text says, and its nodes, which know their lines; raises as `read_yaml` does."""
    if len(text) > _MOST_CHARACTERS:
        raise YamlTooLarge(f"larger than {_MOST_CHARACTERS:,} characters")
    loader = _Loader(text)
    try:
        tree: yaml.Node | None = loader.get_single_node()
        if tree is None:
            return None, None
        if _values(tree, {}) > _MOST_VALUES:
            raise YamlTooLarge(f"aliases make more than {_MOST_VALUES:,} values of it")
        value = loader.construct_document(tree)
    finally:
        loader.dispose()
    # Mappings that take in others (`<<`) were changed by that.
    return value, yaml.compose(text, Loader=yaml.SafeLoader) if "<<" in text else tree


def read_yaml_text(path: Path) -> str:
    """Return the text of a YAML file; of one that is too large no more than shows that.

    Raises:
        OSError: it cannot be read.
        UnicodeError: it is not text.
    """
    with path.open(encoding="utf-8") as file:
        return file.read(_MOST_CHARACTERS + 1)


def _values(node: yaml.Node, known: dict[int, float]) -> float:
    """Count what a node stands for; infinite where it contains itself."""
    found = known.get(id(node))
    if found is not None:
        return found
    known[id(node)] = float("inf")
    match node:
        case yaml.MappingNode(value=pairs):
            inner = [part for pair in pairs for part in pair]
        case yaml.SequenceNode(value=inner):
            pass
        case _:
            inner = []
    known[id(node)] = total = 1 + sum(_values(part, known) for part in inner)
    return total
