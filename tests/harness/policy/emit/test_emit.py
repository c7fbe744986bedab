"""What is written for each target, without running it."""

from __future__ import annotations

import pytest

from harness.policy.emit.stacks import TARGETS, CannotEmit, emit
from reference_server.liveness.heartbeat_policy import LivenessPolicy

PYTHON = ["websockets", "uvicorn", "python-socketio", "aiohttp"]
CLASSIC = LivenessPolicy()  # 30 s, 10 s, 3 failures: [70, 100)


@pytest.mark.parametrize(
    ("target", "range_s", "lines"),
    [
        (
            "websockets",
            (72, 102),
            [
                '"ping_interval": 30,',
                '"ping_timeout": 70,',
                '"close_timeout": 2,',
                "USER_TIMEOUT_MS = 100000",
            ],
        ),
        ("uvicorn", (70, 100), ['"ws_ping_interval": 30,', '"ws_ping_timeout": 70,']),
        (
            "python-socketio",
            (70, 100),
            ['"ping_interval": 30,', '"ping_timeout": 70,', "ws_ping_interval=None"],
        ),
        ("aiohttp", (15, 45), ["HEARTBEAT_S = 30"]),
        ("nginx", (924.6, 30 + 0.4 + 924.6 + 120), ["proxy_read_timeout 130s;"]),
        ("sysctl", (102.2, 30 + 0.4 + 102.2 + 102.8), ["net.ipv4.tcp_retries2 = 8"]),
    ],
)
def test_the_classic_policy(target: str, range_s: tuple[float, float], lines: list[str]) -> None:
    emitted = emit(CLASSIC, target)
    assert emitted.detection_range_s == pytest.approx(range_s)
    for line in lines:
        assert line in emitted.text
    head = f"# A silent client is noticed {range_s[0]:.12g} to {emitted.detection_range_s[1]:.12g} s"
    assert head in emitted.text


@pytest.mark.parametrize("target", PYTHON)
def test_programs_are_python_that_needs_nothing_of_ours(target: str) -> None:
    text = emit(CLASSIC, target).text
    compile(text, target, "exec")
    for ours in ("harness", "reference_server", "scenarios"):
        assert ours not in text


@pytest.mark.parametrize("target", TARGETS)
def test_every_note_stands_in_the_text(target: str) -> None:
    emitted = emit(CLASSIC, target)
    assert emitted.notes
    told = " ".join(line.removeprefix("#").removeprefix(" *").strip() for line in emitted.text.splitlines())
    for note in emitted.notes:
        assert note in " ".join(told.split())


@pytest.mark.parametrize("target", ["websockets", "uvicorn", "python-socketio"])
def test_what_becomes_of_max_failures_is_said_when_there_are_several(target: str) -> None:
    one = CLASSIC.model_copy(update={"max_failures": 1})
    assert any("max_failures 3" in note for note in emit(CLASSIC, target).notes)
    assert not any("max_failures" in note for note in emit(one, target).notes)


@pytest.mark.parametrize(
    ("idle_s", "phrase"),
    [
        (60.0, "would have noticed some silent clients by it first"),
        (300.0, "would not have been the first"),
        (None, None),
    ],
)
def test_a_session_timeout_that_would_win_is_pointed_out(idle_s: float | None, phrase: str | None) -> None:
    notes = emit(CLASSIC.model_copy(update={"session_timeout": idle_s}), "uvicorn").notes
    assert any("session_timeout" in note for note in notes) == (phrase is not None)
    assert phrase is None or any(phrase in note for note in notes)


@pytest.mark.parametrize(
    ("interval_s", "timeout_s", "failures", "heartbeat_s"),
    [
        (30.0, 10.0, 3, 30.0),  # its own T: traffic as often as the policy's
        (30.0, 3.0, 1, 22.0),  # 3/2 × 22 = 33 = T + tau: not later than the policy
        (30.0, 15.0, 1, 30.0),
    ],
)
def test_aiohttp_never_beats_less_often_nor_detects_later(
    interval_s: float, timeout_s: float, failures: int, heartbeat_s: float
) -> None:
    policy = LivenessPolicy(heartbeat_interval=interval_s, heartbeat_timeout=timeout_s, max_failures=failures)
    emitted = emit(policy, "aiohttp")
    assert f"HEARTBEAT_S = {heartbeat_s:g}\n" in emitted.text
    assert policy.detection_range_s is not None
    assert heartbeat_s <= interval_s
    assert emitted.detection_range_s[1] <= policy.detection_range_s[1] + 1e-9


def test_a_user_timeout_below_the_deadline_bounds_the_range() -> None:
    policy = CLASSIC.model_copy(update={"tcp_user_timeout": 20.0})
    assert emit(policy, "uvicorn").detection_range_s == (20.0, 51.0)
    assert "USER_TIMEOUT_MS = 20000" in emit(policy, "uvicorn").text


def test_sysctl_says_when_the_heartbeat_is_slower_than_any_kernel() -> None:
    slow = LivenessPolicy(heartbeat_interval=600.0, heartbeat_timeout=600.0, max_failures=2)
    emitted = emit(slow, "sysctl")
    assert "tcp_retries2 = 15" in emitted.text
    assert any("the kernel may come first" in note for note in emitted.notes)


def test_unknown_targets_and_policies_without_heartbeat_are_refused() -> None:
    with pytest.raises(CannotEmit, match="allowed: websockets, uvicorn, python-socketio, aiohttp"):
        emit(CLASSIC, "gorilla")
    with pytest.raises(CannotEmit, match="no heartbeat"):
        emit(CLASSIC.model_copy(update={"heartbeat_interval": None}), "uvicorn")
