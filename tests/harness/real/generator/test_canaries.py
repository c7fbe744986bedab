"""Canaries take turns, and no wait for an answer is lost, whatever becomes of those who wait."""

from __future__ import annotations

from harness.real.generator.canaries import Canaries

EVERY_S = 0.01


class Canary:
    def __init__(self) -> None:
        self.connected, self.deaf, self.breaks = True, False, False
        self.pings = 0

    def ping(self) -> bool:
        if self.breaks:
            self.connected = False
            return False
        self.pings += not self.deaf
        return not self.deaf


class Process:
    """Three canaries of a process, whose pings are answered at once unless the server stalls."""

    def __init__(self, joined: int = 3) -> None:
        self.told: list[float] = []
        self.canaries = Canaries(range(3), self.told.append)
        self.three = [Canary() for _ in range(3)]
        self.now_s = 10.0
        for canary in self.three[:joined]:
            self.canaries.join(canary, self.now_s)

    def turns(self, count: int, *, answers: bool = True) -> None:
        for _ in range(count):
            self.canaries.turn(self.now_s)
            self.now_s += EVERY_S
            for canary in self.three if answers else ():
                self.canaries.answered(canary, self.now_s - 0.008)

    def worst_s(self) -> float:
        self.canaries.tell(self.now_s)
        return max(self.told)


def test_they_take_turns_and_who_is_away_leaves_none_empty() -> None:
    process = Process()
    process.turns(30)
    assert [canary.pings for canary in process.three] == [10, 10, 10]
    process.three[1].connected = False
    process.turns(30)
    assert [canary.pings for canary in process.three] == [25, 10, 25]
    process.three[1].connected = True
    process.canaries.join(process.three[1], process.now_s)
    process.turns(30)
    assert [canary.pings for canary in process.three] == [35, 20, 35]
    assert 0 < process.worst_s() < 0.003


def test_a_stall_is_as_long_as_the_longest_wait_and_told_while_it_lasts() -> None:
    process = Process()
    process.turns(60)
    process.told.clear()
    process.turns(100, answers=False)
    assert [canary.pings for canary in process.three] == [21, 21, 21], "who waits does not ping again"
    assert process.told, "told twice a second, answered or not"
    process.turns(1)
    assert 1.0 - EVERY_S <= process.worst_s() <= 1.0 + EVERY_S


def test_a_wait_that_ends_with_the_connection_counts() -> None:
    process = Process(joined=1)
    process.turns(25, answers=False)
    process.three[0].connected = False
    process.turns(1)
    assert process.worst_s() >= 0.25 - EVERY_S


def test_one_that_is_back_before_anybody_looked_has_waited_all_the_same() -> None:
    process = Process(joined=1)
    process.turns(25, answers=False)
    process.canaries.join(process.three[0], process.now_s)
    assert process.worst_s() >= 0.25 - EVERY_S


def test_a_silence_of_its_own_network_is_no_stall() -> None:
    process = Process(joined=1)
    process.turns(1, answers=False)
    process.three[0].deaf = True
    process.turns(200)
    process.three[0].deaf = False
    process.turns(20)
    assert process.worst_s() < 0.02


def test_a_ping_that_ends_the_connection_passes_the_turn_on() -> None:
    process = Process()
    process.three[0].breaks = True
    process.turns(1)
    assert [canary.pings for canary in process.three] == [0, 1, 0]


def test_without_anybody_nothing_is_told() -> None:
    process = Process(joined=0)
    process.turns(200)
    process.canaries.tell(process.now_s)
    assert not process.told
