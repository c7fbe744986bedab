from __future__ import annotations

import math

import pytest

from harness.simulated.clock import Clock
from harness.simulated.store import Store


@pytest.fixture
def clock() -> Clock:
    return Clock(math.inf)


@pytest.fixture
def store(clock: Clock) -> Store:
    """One session of one user, owned by connection c1 since second 0."""
    store = Store(clock, session_ttl_s=100.0, status_ttl_s=40.0)
    store.write_login("s1", "u1")
    store.own("s1", "u1", "c1")
    return store


def test_records_are_gone_the_instant_their_ttl_is_over(clock: Clock, store: Store) -> None:
    clock.env.run(until=39.999)
    assert store.status("u1") is not None
    clock.env.run(until=40.0)
    assert store.status("u1") is None
    clock.env.run(until=99.999)
    assert store.session("s1") is not None
    assert store.count_sessions() == 1
    clock.env.run(until=100.0)
    assert store.count_sessions() == 0
    assert store.session("s1") is None


def test_a_refresh_gives_the_whole_ttl_and_brings_back_what_expired(clock: Clock, store: Store) -> None:
    clock.env.run(until=50.0)
    store.refresh("s1", "u1", "c1")
    clock.env.run(until=60.0)
    assert store.gone_s("s1", "u1") == 90.0
    clock.env.run(until=89.0)
    assert store.status("u1") is not None


def test_an_older_connection_neither_refreshes_nor_deletes(clock: Clock, store: Store) -> None:
    clock.env.run(until=10.0)
    store.own("s1", "u1", "c2")
    clock.env.run(until=30.0)
    store.refresh("s1", "u1", "c1")
    assert store.gone_s("s1", "u1") == 50.0
    assert not store.clean_up("s1", "u1", "c1")
    assert store.session("s1") is not None


def test_cleaning_up_an_old_session_leaves_the_users_newer_one(clock: Clock, store: Store) -> None:
    clock.env.run(until=10.0)
    store.own("s2", "u1", "c2")
    clock.env.run(until=20.0)
    assert not store.clean_up("s1", "u1", "c1"), "the user is online through s2"
    assert store.session("s1") is None
    status = store.status("u1")
    assert status is not None and status.value == "s2"
    assert "u1" in store.online


def test_a_session_is_shown_no_more_when_the_status_names_another_one(clock: Clock, store: Store) -> None:
    changed: list[str] = []
    store.on_change = changed.append
    clock.env.run(until=10.0)
    store.own("s2", "u1", "c2")
    assert changed == ["s2", "s1"]
    assert store.gone_s("s1", "u1") == 10.0
    assert store.session("s1") is not None


def test_a_clean_up_may_leave_the_session_to_come_back_to(clock: Clock, store: Store) -> None:
    clock.env.run(until=10.0)
    assert store.clean_up("s1", "u1", "c1", keeps_session=True)
    assert store.gone_s("s1", "u1") == 10.0
    assert store.session("s1") is not None
