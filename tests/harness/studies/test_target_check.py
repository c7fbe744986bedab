"""What a check of a target finds, and what a run makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.real.errors import CannotRun
from harness.real.targets.describe import lacking
from harness.studies.target_check import TargetCheck, Unfit, checked_once, remember
from scenarios.target_files import load_target, parse_target
from tests.support import missing

_MUTE = """
from harness.real.dialects.engineio import EngineIo

class Mute(EngineIo):
    def receive(self, message):
        return () if message == "2" else super().receive(message)
"""


@pytest.mark.real
def test_a_dialect_that_keeps_its_pongs_is_not_run(tmp_path: Path) -> None:
    target = load_target("python-socketio")
    if lacks := lacking(target):
        missing("; ".join(lacks))
    (tmp_path / "mute.py").write_text(_MUTE)
    mute = target.model_copy(update={"dialect": f"{tmp_path / 'mute.py'}:Mute"})
    done: list[TargetCheck] = []
    with pytest.raises(
        Unfit, match=r"healthy clients: \d+ of \d+ connections were lost after .* does not keep"
    ):
        checked_once(mute, tmp_path, told=done.append)
    assert not done[0].findings[0].good
    assert not (tmp_path / "checked-targets.json").exists()


def test_what_a_check_dropped_is_remembered_for_this_very_file(tmp_path: Path) -> None:
    text = (
        "target: mine\nstart: {command: [no-such-program]}\nconnect: {url: 'ws://127.0.0.1:{port}/'}\n"
        "dialect: websocket\nheartbeat: {model: never}\n"
        "witnesses: {socket_closed: kernel, suspected: '^gone {client}'}\n"
    )
    target = parse_target(text)
    with pytest.raises(CannotRun, match="no-such-program"):
        checked_once(target, tmp_path)
    remember(target, ["suspected"], tmp_path)
    assert checked_once(target, tmp_path).witnesses.milestones == {"socket_closed"}
    other = parse_target(text.replace("gone", "left"))
    with pytest.raises(CannotRun, match="no-such-program"):
        checked_once(other, tmp_path)
    (tmp_path / "checked-targets.json").write_text("{")
    with pytest.raises(CannotRun, match="no-such-program"):
        checked_once(target, tmp_path)
