"""YAML that stands for more than it says."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from harness.cli.main import app
from scenarios.load import ScenarioError, built_in, parse_scenario
from scenarios.read_yaml import YamlTooLarge, read_yaml, read_yaml_text

LAUGHS = "a0: &a0 [lol]\n" + "".join(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 9}*a{n - 1}]\n" for n in range(1, 10))
MERGES = "a0: &a0 {k: 1}\n" + "".join(
    f"a{n}: &a{n} {{{', '.join(f'k{m}: *a{n - 1}' for m in range(9))}}}\n" for n in range(1, 10)
)
TOO_MUCH = {
    "a billion laughs": (LAUGHS, "aliases make more than"),
    "the same in mappings": (MERGES, "aliases make more than"),
    "one that contains itself": ("a: &a [*a]", "aliases make more than"),
    "brackets": ("[" * 100_000, "nested more than 50 levels deep"),
    "brackets that are closed": ("a: " + "[" * 5_000 + "]" * 5_000, "nested more than 50 levels deep"),
    "braces": ("{a: " * 1_000, "nested more than 50 levels deep"),
    "indents": ("\n".join("  " * n + "a:" for n in range(200)), "nested more than 50 levels deep"),
    "dashes": ("- " * 3_000, "nested more than 50 levels deep"),
    "size": ("a: 1\n" * 300_000, "larger than 1,000,000 characters"),
}


@pytest.mark.parametrize("what", TOO_MUCH)
def test_it_is_refused_in_a_sentence_and_in_little_memory(what: str) -> None:
    text, sentence = TOO_MUCH[what]
    tracemalloc.start()
    try:
        with pytest.raises(YamlTooLarge, match=sentence):
            read_yaml(text)
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()
    with pytest.raises(ScenarioError, match=sentence):
        parse_scenario(text)


@pytest.mark.parametrize("command", ["run", "simulate", "lint"])
@pytest.mark.parametrize("what", ["a billion laughs", "brackets", "size"])
def test_every_command_says_so(command: str, what: str, tmp_path: Path) -> None:
    path = tmp_path / "bomb.yaml"
    path.write_text(TOO_MUCH[what][0])
    done = CliRunner().invoke(app, [command, str(path)])
    assert done.exit_code not in (0, 1)
    assert TOO_MUCH[what][1] in " ".join(done.output.split()), done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize("value", ["[[[", "[" * 100, "2026-99-99"])
def test_a_value_of_the_command_line_is_refused_in_a_sentence(value: str) -> None:
    done = CliRunner().invoke(app, ["run", "demo", "--negative-control", f"heartbeat_interval={value}"])
    assert done.exit_code == 2 and "--negative-control" in done.output


def test_what_a_file_may_say_is_read_as_yaml_reads_it() -> None:
    for path in built_in().values():
        assert read_yaml(path.read_text()) == yaml.safe_load(path.read_text())
    text = "base: &base {a: 1, b: [x, y]}\nmore: {<<: *base, c: 3}\nagain: *base\nwhen: 2026-01-01\nnone:\n"
    assert read_yaml(text) == yaml.safe_load(text)
    assert read_yaml("") is None
    assert read_yaml("[" * 49 + "]" * 49) == yaml.safe_load("[" * 49 + "]" * 49)


def test_no_more_is_read_of_a_file_than_shows_that_it_is_too_large(tmp_path: Path) -> None:
    path = tmp_path / "endless"
    with path.open("w") as file:
        file.truncate(10**10)  # nothing is on the disk of it
    assert len(read_yaml_text(path)) == 1_000_001
