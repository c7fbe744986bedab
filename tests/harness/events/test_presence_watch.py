"""Which sessions the store is asked for, and what is noted of the answers."""

from __future__ import annotations

from harness.events.presence_watch import PresenceWatch
from reference_server.events import EventKind
from tests.harness.handmade import CLIENT, K, connected, event


def watch_of(*clients: int) -> PresenceWatch:
    watch = PresenceWatch()
    for n in clients:
        watch.take(event(0.5, CLIENT, K.LOGGED_IN, f"s{n}", "", user_id=f"user-{n}"))
        watch.take(connected(1.0, n)[1])
    return watch


def kinds(watch: PresenceWatch, status: str | None, time_s: float) -> list[tuple[EventKind, float | None]]:
    found = watch.answer({"s0": status}, time_s, time_s + 0.001)
    return [(one.kind, one.detail["previous_poll_s"]) for one in found]


def test_only_changes_are_noted_with_the_look_before() -> None:
    watch = watch_of(0)
    assert kinds(watch, "s0|c0", 2.0) == []
    assert kinds(watch, None, 3.0) == [(K.STATUS_GONE, 2.0)]
    assert kinds(watch, "other|c9", 4.0) == []
    assert kinds(watch, "s0|c0", 5.0) == [(K.STATUS_SHOWN, 4.0)]


def test_whoever_is_not_connected_is_not_asked_for() -> None:
    watch = watch_of(0, 1)
    assert watch.questions(10) == {"s0": "user-0", "s1": "user-1"}
    watch.take(event(6.0, CLIENT, K.DISCONNECTED, "s0", "c0"))
    assert watch.questions(10) == {"s1": "user-1"}
    assert kinds(watch, None, 7.0) == []  # an answer to a question from before
    watch.take(connected(8.0, 0)[1])
    assert kinds(watch, None, 9.0) == [(K.STATUS_GONE, None)]  # of the new connection


def test_with_more_sessions_than_questions_all_have_their_turn() -> None:
    watch = watch_of(0, 1, 2)
    assert [list(watch.questions(2)) for _ in range(3)] == [["s0", "s1"], ["s2", "s0"], ["s1", "s2"]]


def test_users_with_a_status_are_counted_by_answers_and_those_without_a_client_are_named() -> None:
    watch = watch_of(0, 1)
    watch.take(event(2.0, CLIENT, K.LOGGED_IN, "s2", "", user_id="user-2"))
    assert (watch.shown, list(watch.absent)) == (2, ["user-2"])
    assert kinds(watch, None, 3.0) and watch.shown == 1
    assert kinds(watch, "elsewhere|c9", 4.0) == [] and watch.shown == 2
    watch.take(event(5.0, CLIENT, K.SESSION_UNKNOWN, "s0", "c0"))
    assert (watch.shown, list(watch.absent)) == (1, ["user-2", "user-0"])
    watch.take(event(6.0, CLIENT, K.LOGGED_IN, "s1", "", user_id="user-1"))  # at another device
    assert (watch.shown, list(watch.absent)) == (1, ["user-2", "user-0"])
