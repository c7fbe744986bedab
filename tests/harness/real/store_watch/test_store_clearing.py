"""When a session counts as cleared, answer by answer, on virtual time."""

from __future__ import annotations

import pytest

from harness.real.store_watch.store_clearing import StoreClearing
from reference_server.events import Event, EventKind, Source

GONE = None
NAMES_IT, NAMES_OTHER = b"s1|c1", b"s2|c9"


def client(kind: EventKind, session_id: str = "s1", user_id: str = "u1") -> Event:
    return Event(0.0, Source.CLIENT, kind, session_id, detail={"user_id": user_id})


def watching(*session_ids: str) -> StoreClearing:
    clearing = StoreClearing("p:")
    for n, session_id in enumerate(session_ids or ["s1"], 1):
        clearing.on_client_event(client(EventKind.FAULT_INJECTED, session_id, f"u{n}"))
    return clearing


def answers(clearing: StoreClearing, *statuses: bytes | None) -> list[Event]:
    """Poll once a second, the answer 0.1 s after the question; one status record a poll."""
    events = []
    for n, status in enumerate(statuses):
        for query in clearing.queries():
            events += clearing.on_answer(query, [status], float(n), n + 0.1)
    return events


TABLE = [
    ("the record goes", [NAMES_IT, GONE], (1.1, 0.0)),
    ("it is gone at the first look", [GONE], (0.1, 0.0)),
    ("it names another session", [NAMES_OTHER], (0.1, 0.0)),
    ("a longer session id that begins alike is another session", [b"s11|c1"], (0.1, 0.0)),
    ("it stays", [NAMES_IT, NAMES_IT], None),
    ("the moment lies after the last look that found it", [NAMES_IT, NAMES_IT, NAMES_IT, GONE], (3.1, 2.0)),
]


@pytest.mark.parametrize(("_", "statuses", "expected"), TABLE, ids=[row[0] for row in TABLE])
def test_table(_: str, statuses: list[bytes | None], expected: tuple[float, float] | None) -> None:
    events = answers(watching(), *statuses)
    if expected is None:
        assert events == []
        return
    time_s, previous_poll_s = expected
    detail = {"user_id": "u1", "previous_poll_s": previous_poll_s}
    assert events == [Event(time_s, Source.STORE, EventKind.STORE_CLEARED, "s1", detail=detail)]


def test_a_cleared_session_is_asked_for_no_more() -> None:
    clearing = watching()
    assert len(answers(clearing, GONE, GONE)) == 1
    assert clearing.queries() == []


def test_a_recovered_session_is_asked_for_no_more_and_a_second_fault_changes_nothing() -> None:
    clearing = watching()
    clearing.on_client_event(client(EventKind.FAULT_RECOVERED))
    clearing.on_client_event(client(EventKind.FAULT_INJECTED))
    assert clearing.queries() == []


def test_a_healthy_session_is_counted_but_not_watched() -> None:
    clearing = StoreClearing("p:")
    clearing.on_client_event(client(EventKind.LOGGED_IN))
    clearing.on_client_event(client(EventKind.CONNECTED))
    assert clearing.queries() == []
    assert list(clearing.session_keys) == [b"p:session:s1"]


def test_a_session_left_is_counted_while_it_is_there_and_forgotten_when_it_is_gone_for_good() -> None:
    clearing = StoreClearing("p:")
    for n in (1, 2):
        clearing.on_client_event(client(EventKind.LOGGED_IN, f"s{n}"))
    assert list(clearing.session_keys) == [b"p:session:s2"]
    assert [clearing.on_left([value]) for value in (b"u1|c1", GONE, b"u1|c1")] == [1, 0, 1]  # written again
    for _ in range(60):
        assert clearing.left_keys == [b"p:session:s1"]
        assert clearing.on_left([GONE]) == 0
    assert clearing.left_keys == []


def test_a_user_who_logs_in_again_and_again_leaves_nothing_behind() -> None:
    clearing = StoreClearing("p:")

    def held() -> int:
        return sum(len(kept) for kept in vars(clearing).values() if not isinstance(kept, str))

    sizes = []
    for n in range(500):
        clearing.on_client_event(client(EventKind.LOGGED_IN, f"s{n}"))
        clearing.on_client_event(client(EventKind.FAULT_INJECTED, f"s{n}"))
        for query in clearing.queries():
            clearing.on_answer(query, [GONE], n, n + 0.1)
        clearing.on_left([GONE] * len(clearing.left_keys))
        sizes.append(held())
    assert max(sizes[100:]) == sizes[100]


def test_queries_come_in_chunks_and_answers_stay_with_their_sessions() -> None:
    names = [f"s{n}" for n in range(1, 1202)]
    clearing = watching(*names)
    queries = clearing.queries()
    assert [len(q.sessions) for q in queries] == [500, 500, 201]
    assert queries[0].keys[:1] == [b"p:status:u1"]
    last = queries[-1]
    values: list[bytes | None] = [f"{w.session_id}|c".encode() for w in last.sessions]
    values[7] = None
    (event,) = clearing.on_answer(last, values, 1.0, 1.1)
    assert (event.session_id, event.detail["user_id"]) == ("s1008", "u1008")
    assert len(clearing.watched) == 1200
