from __future__ import annotations

import pytest

from harness.simulated.store import Store


@pytest.fixture
def store() -> Store:
    """One session of one user, owned by connection c1 since second 0."""
    store = Store(session_ttl_s=100.0, status_ttl_s=40.0)
    store.write_login("s1", "u1", 0.0)
    store.own("s1", "u1", "c1", 0.0)
    return store


def test_records_are_gone_the_instant_their_ttl_is_over(store: Store) -> None:
    assert store.status("u1", 39.999) is not None
    assert store.status("u1", 40.0) is None
    assert store.session("s1", 99.999) is not None
    assert store.count_sessions(99.999) == 1
    assert store.count_sessions(100.0) == 0
    assert store.session("s1", 100.0) is None


def test_a_refresh_gives_the_whole_ttl_and_brings_back_what_expired(store: Store) -> None:
    store.refresh("s1", "u1", "c1", 50.0)
    assert store.status("u1", 89.0) is not None
    assert store.gone_s("s1", "u1", 60.0) == 150.0


def test_an_older_connection_neither_refreshes_nor_deletes(store: Store) -> None:
    store.own("s1", "u1", "c2", 10.0)
    store.refresh("s1", "u1", "c1", 30.0)
    assert store.gone_s("s1", "u1", 30.0) == 110.0
    assert not store.clean_up("s1", "u1", "c1", 30.0)
    assert store.session("s1", 30.0) is not None


def test_cleaning_up_an_old_session_leaves_the_users_newer_one(store: Store) -> None:
    store.own("s2", "u1", "c2", 10.0)
    assert not store.clean_up("s1", "u1", "c1", 20.0), "the user is online through s2"
    assert store.session("s1", 20.0) is None
    status = store.status("u1", 20.0)
    assert status is not None and status.value == "s2"
    assert "u1" in store.online


def test_a_session_is_cleared_when_its_status_names_another_one(store: Store) -> None:
    changed: list[str] = []
    store.on_change = changed.append
    store.own("s2", "u1", "c2", 10.0)
    assert changed == ["s1"]
    assert store.gone_s("s1", "u1", 10.0) == 100.0, "its own record is still there"
    store.clean_up("s1", "u1", "c1", 20.0)
    assert store.gone_s("s1", "u1", 20.0) == 20.0
