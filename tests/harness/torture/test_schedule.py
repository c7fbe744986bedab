"""Schedules and how they are shrunk: pure, on virtual time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from harness.torture.history import History, read_history
from harness.torture.schedule import KINDS, Schedule, ScheduleError, Step, draw, read_schedule, seed_of
from harness.torture.shrink import shrink

ALL = ("silence", "hosts")


def test_a_seed_gives_one_schedule_and_another_seed_another() -> None:
    assert draw("1.7", ALL) == draw("1.7", ALL)
    assert draw("1.7", ALL) != draw("1.8", ALL)
    assert draw("1.7", ALL) != draw("2.7", ALL)


@pytest.fixture(scope="module")
def many() -> list[Schedule]:
    return [draw(seed_of(5, n), ALL) for n in range(300)]


def test_everything_is_drawn_and_everything_ends_in_time(many: list[Schedule]) -> None:
    seen = {step.kind for schedule in many for step in schedule.steps}
    assert seen == set(KINDS)
    assert {schedule.one_connection_per for schedule in many} == {"user", "device"}
    assert {schedule.survives_connection for schedule in many} == {True, False}
    assert {len(schedule.clocks_s) for schedule in many} == {0, many[0].nodes}
    assert any(schedule.clock_of(1) for schedule in many)
    for schedule in many:
        assert list(schedule.steps) == sorted(schedule.steps)
        for step in schedule.steps:
            assert 0 <= step.at_s <= step.at_s + step.lasts_s <= schedule.length_s + 1e-6, step
            side = KINDS[step.kind].side
            assert step.target in {
                "client": range(schedule.clients),
                "node": range(1, schedule.nodes + 1),
            }.get(side, (0,)), step


def test_faults_overlap_and_each_schedule_leaves_some_kinds_out(many: list[Schedule]) -> None:
    def overlap(steps: Sequence[Step]) -> bool:
        lasting = [s for s in steps if s.lasts_s and KINDS[s.kind].side != "client"]
        return any(b.at_s < a.at_s + a.lasts_s for a, b in pairwise(lasting))

    assert sum(overlap(schedule.steps) for schedule in many) > len(many) / 3
    assert all(len({step.kind for step in schedule.steps}) < len(KINDS) for schedule in many)


def test_what_the_machine_cannot_do_is_not_drawn_and_not_replayed(tmp_path: Path) -> None:
    path = tmp_path / "schedule.json"
    for n in range(50):
        assert all(KINDS[step.kind].needs is None for step in draw(f"3.{n}", ()).steps)
    Schedule("1.1", (Step(1.0, "host", 2, 1.0),)).write(path)
    with pytest.raises(ScheduleError, match="host needs root"):
        read_schedule(path, ("silence",))


def test_a_schedule_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "schedule.json"
    schedule = draw("4.2", ALL)
    schedule.write(path)
    assert read_schedule(path, ALL) == schedule
    path.write_text(path.read_text().replace('"come"', '"go"'))
    with pytest.raises(ScheduleError, match="unknown step 'go'"):
        read_schedule(path, ALL)
    path.write_text("{}")
    with pytest.raises(ScheduleError, match="no schedule"):
        read_schedule(path, ALL)


def test_a_history_is_read_as_it_was_written(tmp_path: Path) -> None:
    history = History()
    op = history.invoke("login", client=3, node=1)
    history.note("login", op=op, outcome="ok", session="s")
    history.insert(time.monotonic() - 1.0, "reaped", session="s", owner="o", by="node-1")
    assert [entry.what for entry in history.entries] == ["reaped", "login", "login"]
    history.write(tmp_path / "history.jsonl")
    assert read_history(tmp_path / "history.jsonl") == history.entries


@pytest.mark.parametrize("guilty", [{3}, {0, 19}, {4, 5, 11}, set(range(0, 20, 3))])
def test_shrinking_finds_the_guilty_and_keeps_their_order(guilty: set[int]) -> None:
    tries = 0

    def fails(items: Sequence[int]) -> bool:
        nonlocal tries
        tries += 1
        return guilty <= set(items)

    assert shrink(range(20), fails, 1000) == sorted(guilty)
    assert tries < 250


def test_shrinking_stops_when_it_may_try_no_more_with_what_still_fails() -> None:
    seen: list[list[int]] = []

    def fails(items: Sequence[int]) -> bool:
        seen.append(list(items))
        return {1, 18} <= set(items)

    left = shrink(range(20), fails, 6)
    assert len(seen) == 6
    assert {1, 18} <= set(left) and len(left) < 20
